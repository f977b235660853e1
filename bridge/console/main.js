// The page: its two views, and the token.

import { setToken, takeToken, token } from "./access.js";
import { Talk } from "./talk.js";

const VIEWS = ["talk"];
const at = (id) => document.getElementById(id);

takeToken();
export const talk = new Talk();

function show() {
  const wanted = VIEWS.find((view) => location.hash === `#${view}`) ?? VIEWS[0];
  for (const view of VIEWS) {
    at(view).hidden = view !== wanted;
    document.querySelector(`nav a[href="#${view}"]`).ariaCurrent = view === wanted ? "page" : null;
  }
}

function askForToken() {
  at("token").value = token();
  at("access").showModal();
}

at("key").onclick = askForToken;
at("access-form").onsubmit = (event) => {
  event.preventDefault();
  setToken(at("token").value);
  at("access").close();
};
at("cancel").onclick = () => at("access").close();
addEventListener("hashchange", () => {
  takeToken();
  show();
});
show();
