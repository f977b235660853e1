// The page: its two views, and the token.

import { setToken, takeToken, token } from "./access.js";
import { Operators } from "./operators.js";
import { Talk } from "./talk.js";

const VIEWS = ["talk", "operators"];
const at = (id) => document.getElementById(id);

takeToken();
export const talk = new Talk();
const operators = new Operators();

function show() {
  const wanted = VIEWS.find((view) => location.hash === `#${view}`) ?? VIEWS[0];
  for (const view of VIEWS) {
    at(view).hidden = view !== wanted;
    document.querySelector(`nav a[href="#${view}"]`).ariaCurrent = view === wanted ? "page" : null;
  }
  operators.show(wanted === "operators");
}

function askForToken() {
  at("token").value = token();
  at("access").showModal();
}

at("key").onclick = at("closed-key").onclick = askForToken;
at("access-form").onsubmit = (event) => {
  event.preventDefault();
  setToken(at("token").value);
  at("access").close();
  operators.renew();
};
at("cancel").onclick = () => at("access").close();
addEventListener("hashchange", () => {
  takeToken();
  show();
});
show();
