// What both sides say, as it comes: an utterance is replaced by its later texts until it is final.

const NEAR = 60; // pixels from the end within which the reader is taken to read along
const MOST = 400; // entries; an hour of talk must not fill the page

const NAMES = { caller: "You", agent: "Agent" };

export class Words {
  #list;
  #aloud;
  #names;
  #entries = new Map();

  // `list` is an <ol>; `aloud`, if given, is an aria-live region that is told whole utterances only.
  constructor(list, aloud = null, names = NAMES) {
    this.#list = list;
    this.#aloud = aloud;
    this.#names = names;
  }

  clear() {
    this.#list.replaceChildren();
    this.#entries.clear();
  }

  // The same key again is the same utterance, with more of its text.
  utter(key, { speaker, text, final }) {
    if (!text) return this.#remove(key); // broken off before a word of it was heard
    const entry = this.#entry(key, speaker, this.#names[speaker] ?? speaker);
    this.#write(entry, text);
    entry.classList.toggle("open", !final);
    if (final && this.#aloud) this.#aloud.textContent = `${this.#names[speaker] ?? speaker}: ${text}`;
  }

  // Something beside the talk, such as what the agent was told in silence. With the same key it is replaced.
  note(key, label, text) {
    this.#write(this.#entry(key, "note", label), text);
  }

  mark(key, state) {
    const entry = this.#entries.get(key);
    if (entry) entry.dataset.state = state;
  }

  #entry(key, kind, label) {
    const known = this.#entries.get(key);
    if (known) return known;
    const entry = document.createElement("li");
    entry.className = kind;
    const who = document.createElement("span");
    who.className = "who";
    who.textContent = label;
    const what = document.createElement("p");
    entry.append(who, what);
    this.#follow(() => this.#list.append(entry));
    this.#entries.set(key, entry);
    if (this.#entries.size > MOST) this.#remove(this.#entries.keys().next().value);
    return entry;
  }

  #write(entry, text) {
    this.#follow(() => (entry.lastChild.textContent = text));
  }

  #remove(key) {
    this.#entries.get(key)?.remove();
    this.#entries.delete(key);
  }

  // Change the list, and stay at its end if that is where the reader is.
  #follow(change) {
    const list = this.#list;
    const along = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR;
    change();
    if (along) list.scrollTop = list.scrollHeight;
  }
}
