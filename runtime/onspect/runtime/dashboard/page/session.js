"use strict";

/* What the pages share: requests, logging in, a person's name, and labelling a part. */

const WORDS = { ok: "OK", ng: "NG", review: "REVIEW", fault: "FAULT" };
const byId = (id) => document.getElementById(id);
const keyOf = (part) => ({ time: part.time, index: part.index, source: part.source });
const clock = (iso) => new Date(iso).toLocaleTimeString("en-GB");

let session = { may_see: false, may_change: false, has_token: false, has_labels: false, fade_s: 5 }; // fade_s: seconds after which a verdict is no longer about now
let who = sessionStorage.getItem("onspect-who") || "";

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

/* An address is shown whole, of a file only its name. */
const camera = (source) => (/^\w{2,}:/.test(source) ? source : source.split(/[/\\]/).pop());

async function read(answer) {
  const content = await answer.json().catch(() => ({}));
  if (answer.status === 401) session.may_change = false; // the line was restarted: ask for the token again
  if (!answer.ok) throw new Error(content.error || `the server answers ${answer.status}`);
  return content;
}

const ask = async (address) => read(await fetch(address));
const post = async (address, body) => read(await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }));

let afterLogin = null;

function logIn(then) {
  afterLogin = then;
  byId("login-error").textContent = "";
  byId("token").value = "";
  byId("login").showModal();
}

byId("login").querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  try {
    await post("/login", { token: byId("token").value });
    byId("login").close();
    await begin(); // each page has its own
    if (afterLogin) afterLogin();
  } catch (error) {
    byId("login-error").textContent = `${error.message}`;
    byId("token").select();
  }
};

function toast(words) {
  byId("toast").hidePopover(); // and shown again, so that it is above a dialog
  write(byId("toast"), words);
  byId("toast").showPopover();
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => byId("toast").hidePopover(), 6000);
}

/* Go on with somebody who has the token, and whose name is known. */
function withName(then) {
  if (!session.may_change) {
    logIn(() => withName(then));
    return;
  }
  if (who) {
    then();
    return;
  }
  byId("label-who").value = "";
  withName.then = then;
  byId("name").showModal();
}

byId("name").querySelector("form").onsubmit = (event) => {
  event.preventDefault();
  who = byId("label-who").value.trim();
  if (!who) return;
  sessionStorage.setItem("onspect-who", who);
  byId("name").close();
  withName.then();
};

/* Label a part once a name is known; then tell the page by `done(label, who)`. */
function sendLabel(part, label, done) {
  if (part.verdict === "fault") {
    toast("A part that was not judged has no label");
    return;
  }
  const key = keyOf(part); // of the part that was on the screen then, whatever comes while the name is typed
  withName(async () => {
    try {
      await post("/labels", { ...key, label, who });
    } catch (error) {
      toast(error.message);
      return;
    }
    const name = part.part ? `part ${part.part}` : `no. ${part.index + 1}`;
    toast(`Labelled ${label}: ${camera(part.source)}, ${name}, ${clock(part.time)}`);
    done(label, who);
  });
}

for (const button of document.querySelectorAll("[data-close]")) button.onclick = () => button.closest("dialog").close();
