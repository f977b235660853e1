// The token of whoever uses this page, and what the bridge says to it.

const KEY = "voice-bridge.token"; // in the session's storage: gone with the tab

// A token in the address (#token=...) is taken out of it at once, so that it is neither shown nor kept in the history.
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given === null) return;
  setToken(given);
  history.replaceState(null, "", location.pathname + location.search);
}

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setToken(given) {
  if (given.trim()) sessionStorage.setItem(KEY, given.trim());
  else sessionStorage.removeItem(KEY);
}

// A browser can set no header on a WebSocket, so the token is a second subprotocol.
export function connect(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const given = token();
  return new WebSocket(url, ["voice-bridge.v1", ...(given ? [`bearer.${given}`] : [])]);
}

// Ask the bridge something by HTTP. Gives {status, body}; status 0 is no answer at all.
export async function ask(path, method = "GET", wanted = undefined) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const body = wanted === undefined ? undefined : JSON.stringify(wanted);
  try {
    const answer = await fetch(path, { method, headers, body, cache: "no-store" });
    const said = await answer.json().catch(() => ({}));
    return { status: answer.status, body: said, retry: answer.headers.get("Retry-After") };
  } catch {
    return { status: 0, body: {} };
  }
}

// Why the bridge did not let somebody in, in words that say what to do.
export function explain({ status, body, retry }, scope) {
  const said = body.error ? `${body.error[0].toUpperCase()}${body.error.slice(1)}.` : "";
  if (status === 0) return "The bridge does not answer. Is it running, and is this device on its network?";
  if (status === 401) {
    const make = `voice-bridge token --subject NAME${scope === "operator" ? " --scope operator" : ""}`;
    return `${token() ? said : "This bridge wants a token."} Make one with “${make}” and give it here, under Token.`;
  }
  if (status === 403 && /scope/.test(said)) {
    return `${said} Make one with “voice-bridge token --subject NAME --scope ${scope}”.`;
  }
  if (status === 404 && scope === "talk") {
    return "This is the address of the operators, which takes no calls. Open the bridge's main address to talk.";
  }
  if (status === 503) {
    return `${said || "The bridge takes no call just now."} Try again in ${retry ?? "a few"} seconds.`;
  }
  return said || `The bridge answers with ${status}.`;
}
