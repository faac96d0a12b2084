"use strict";

const WORDS = { ok: "OK", ng: "NG", review: "REVIEW", fault: "FAULT" };
const byId = (id) => document.getElementById(id);
const show = (number) => (number === null || number === undefined ? "–" : String(Number(number.toPrecision(4))));

let state = null;
let shown = "";

function write(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

async function post(address, body) {
  const answer = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error || `the server answers ${answer.status}`);
  return content;
}

/* Ask for something, show the new state, or say why not. */
async function act(address, body = {}) {
  write("error", "");
  try {
    render({ ...state, ...(await post(address, body)) });
  } catch (error) {
    write("error", error.message);
  }
}

function render(next) {
  state = next;
  const { measures, phase } = state;
  write("model", state.model);
  byId("link").dataset.state = state.connected ? "on" : "off";
  write("link-words", state.connected ? "Camera connected" : "No camera");
  write("camera", state.camera);
  for (const name of ["brightness", "clipped", "focus"]) {
    const value = measures[name];
    byId(name).value = value ?? 0;
    write(`${name}-value`, value === undefined ? "–" : name === "brightness" ? value.toFixed(0) : `${(100 * value).toFixed(0)} %`);
  }
  write("advice", state.connected && state.advice ? state.advice : state.message);
  if (state.presence) write("no-picture", "Waiting for the first part; each part that passes is shown once");
  write("taken", String(state.taken));
  write("wanted", state.wanted ? `${state.wanted} more parts are taken as they come` : "");
  write("take-many", state.wanted ? "Stop" : "Take each as it comes");
  const busy = phase === "teaching" || phase === "service";
  for (const id of ["take", "take-many", "remove", "whole"]) byId(id).disabled = busy;
  byId("teach").disabled = busy || state.taken < state.fewest;
  byId("service").disabled = phase !== "try";
  write("progress", phase === "teaching" ? state.progress || "The parts are being taught" : state.support || "");
  if (state.error && phase !== "teaching") write("error", state.error);
  const { verdict } = state;
  byId("verdict").dataset.verdict = verdict ? verdict.verdict : "none";
  write("verdict", verdict ? WORDS[verdict.verdict] : "–");
  write("score", verdict ? verdict.reason || `score ${show(verdict.score)}, NG from ${show(verdict.threshold)}` : "");
  placeRegion(state.region);
}

const askSession = async () => (await fetch("/session")).json();

async function begin() {
  const session = await askSession();
  if (session.may_see) look();
  else byId("login").showModal();
}

async function look() {
  for (;;) {
    if (state && state.phase === "service") {
      write("progress", "The line is starting");
      const session = await askSession().catch(() => ({})); // between two servers there is none for a second
      if (session.page === "line") {
        location.href = "/";
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 500));
      continue;
    }
    try {
      const answer = await fetch(`/teach/picture?after=${shown}`);
      if (answer.status === 401) {
        begin();
        return;
      }
      const next = JSON.parse(answer.headers.get("X-Onspect-Teach"));
      shown = next.phase === "try" && state && state.phase !== "try" ? "" : String(next.number);
      if (answer.status === 200) {
        const old = byId("picture").src;
        byId("picture").src = URL.createObjectURL(await answer.blob());
        await byId("picture").decode().catch(() => {});
        if (old.startsWith("blob:")) URL.revokeObjectURL(old);
        byId("picture").hidden = false;
        byId("no-picture").hidden = true;
      }
      render(next);
      await new Promise((resolve) => setTimeout(resolve, next.phase === "teaching" ? 200 : 60));
    } catch {
      byId("link").dataset.state = "off";
      write("link-words", "No connection");
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

/* ---- the region: a rectangle on the picture, in shares of it ---- */

function pictureBox() {
  const stage = byId("stage").getBoundingClientRect();
  const { naturalWidth, naturalHeight } = byId("picture");
  if (!naturalWidth) return null;
  const scale = Math.min(stage.width / naturalWidth, stage.height / naturalHeight);
  const [width, height] = [naturalWidth * scale, naturalHeight * scale];
  return { left: (stage.width - width) / 2, top: (stage.height - height) / 2, width, height, stage };
}

function placeRegion(region) {
  const box = pictureBox();
  byId("region").hidden = !region || !box;
  if (!region || !box) return;
  const { style } = byId("region");
  style.left = `${box.left + region[0] * box.width}px`;
  style.top = `${box.top + region[1] * box.height}px`;
  style.width = `${region[2] * box.width}px`;
  style.height = `${region[3] * box.height}px`;
}

let drag = null;

function pointOf(event) {
  const box = pictureBox();
  if (!box) return null;
  const limit = (share) => Math.min(1, Math.max(0, share));
  return [limit((event.clientX - box.stage.left - box.left) / box.width), limit((event.clientY - box.stage.top - box.top) / box.height)];
}

const between = ([x, y], [u, v]) => [Math.min(x, u), Math.min(y, v), Math.abs(x - u), Math.abs(y - v)];

byId("stage").onpointerdown = (event) => {
  if (!state || !["take", "try"].includes(state.phase)) return;
  drag = pointOf(event);
  byId("stage").setPointerCapture(event.pointerId);
  event.preventDefault();
};
byId("stage").onpointermove = (event) => drag && placeRegion(between(drag, pointOf(event)));
byId("stage").onpointerup = (event) => {
  if (!drag) return;
  const region = between(drag, pointOf(event));
  drag = null;
  if (Math.min(region[2], region[3]) >= 0.02) act("/teach/region", { region });
};
byId("whole").onclick = () => act("/teach/region", { region: null });

byId("take").onclick = () => act("/teach/take", { count: 1 });
byId("take-many").onclick = () => act("/teach/take", { count: state.wanted ? 0 : Number(byId("count").value) });
byId("remove").onclick = () => act("/teach/remove");
byId("teach").onclick = () => act("/teach/start");
byId("service").onclick = () => act("/teach/service", { who: byId("who").value });
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.target.matches("input, button") || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  if (!byId("take").disabled) byId("take").click();
});
byId("login").querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  try {
    await post("/login", { token: byId("token").value });
    byId("login").close();
    begin();
  } catch (error) {
    byId("login-error").textContent = error.message;
    byId("token").select();
  }
};
begin();
