"use strict";

const SILENCE_MS = 3500; // the server sends something every second
const PICTURE_PAUSE_MS = 80;
const MARKS = 240;
const PICTURE_LATE_MS = 2000; // after which the tile no longer waits for the picture of its part

const state = {
  data: null, // the last event
  heard: 0, // performance.now() of it
  marks: [], // [number, verdict, score, threshold, review]
  view: "latest",
  heat: true,
  shown: null, // the part whose picture is on the screen,
  shownAt: 0, // since when, as performance.now(),
  shownBorn: 0, // and when it was judged
  rejects: [],
  open: 0, // the reject in the dialog
};

function show(score) {
  if (score === null || score === undefined) return "–";
  const digits = Number(score.toPrecision(4));
  return Math.abs(digits) >= 1e6 || (digits !== 0 && Math.abs(digits) < 1e-4) ? digits.toExponential(2) : String(digits);
}

const count = (number) => (number === undefined || number === null ? "–" : number.toLocaleString("en-US"));

function span(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} days`;
}

function compare(part) {
  if (part.verdict === "fault" || part.score === null) return part.reason || "could not be judged";
  if (part.verdict === "ng") return `score ${show(part.score)} ≥ ${show(part.threshold)}`;
  if (part.verdict === "review") return `score ${show(part.review_threshold)} ≤ ${show(part.score)} < ${show(part.threshold)}`;
  return `score ${show(part.score)} < ${show(part.review_threshold ?? part.threshold)}`;
}

function shape(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#shape-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/* ---- what the line says ---- */

function hear(data) {
  if (state.data && data.number < state.data.number) state.marks = []; // the line was restarted
  const before = state.data;
  state.data = data;
  state.heard = performance.now();
  const last = state.marks.length ? state.marks[state.marks.length - 1][0] : 0;
  state.marks.push(...data.scores.filter((mark) => mark[0] > last));
  state.marks.splice(0, Math.max(0, state.marks.length - MARKS));
  render();
  if (data.scores.length) drawScores();
  const changed = data.rejected && (!before || !before.rejected || before.rejected.number !== data.rejected.number);
  if (changed || !before) {
    refreshRejects();
    setTimeout(refreshRejects, 2500); // the database and the folder of evidence have it a moment later
  }
  if (!before) refreshHours();
}

function lineState() {
  const { data } = state;
  if (!data || performance.now() - state.heard > SILENCE_MS) return ["off", data ? "No connection" : "Connecting", "NO DATA"];
  const { status } = data;
  if (!status) return ["wait", "Starting", null];
  if (!status.running) return ["off", "Line stopped", "STOPPED"];
  if (data.status_age > 5) return ["off", "Line does not answer", "NO DATA"];
  const away = lostCameras(status);
  if (away.length) return ["off", away.length === status.sources.length ? "No camera" : "A camera is away", "NO CAMERA"];
  return ["on", "Running", null];
}

const lostCameras = (status) => status.sources.filter((source) => !source.connected);

/* The tile shows the part whose picture is on the screen, unless that picture is late. */
function currentPart(data) {
  const { shown, view } = state;
  const fits = view === "latest" && shown && data.latest && shown.number <= data.latest.number;
  if (fits && (shown.number === data.latest.number || performance.now() - state.shownAt < PICTURE_LATE_MS)) {
    return { ...shown, age: (performance.now() - state.shownBorn) / 1000 };
  }
  return data.latest && { ...data.latest, age: data.latest.age + (performance.now() - state.heard) / 1000 };
}

function render() {
  const { data } = state;
  const [kind, words, instead] = lineState();
  byId("link").dataset.state = kind;
  write(byId("link").querySelector("span"), words);
  document.body.classList.toggle("away", Boolean(instead) && instead === "NO DATA");
  if (!data) return;
  renderVerdict(currentPart(data), instead, data.status);
  if (data.status) renderStatus(data.status);
  renderMoved(data.moved);
}

function renderVerdict(part, instead, status) {
  const stale = part && part.age > session.fade_s;
  const kind = instead === "NO CAMERA" ? "lost" : instead || !part || stale ? "none" : part.verdict;
  const tile = byId("verdict");
  if (tile.dataset.verdict !== kind) {
    tile.dataset.verdict = kind;
    byId("verdict-shape").setAttribute("href", `#shape-${kind}`);
    if (kind === "ng" || kind === "fault") announce(`${WORDS[kind]}: ${part.reason || `score ${show(part.score)}`}`);
    if (kind === "lost") announce("No camera");
  }
  tile.classList.toggle("fading", kind !== "none" && kind !== "lost" && part.age > session.fade_s / 2);
  const word = instead || (part && !stale ? WORDS[part.verdict] : "WAITING");
  if (byId("verdict-word").textContent !== word) {
    write(byId("verdict-word"), word);
    fitWord();
  }
  const judged = part && !instead && !stale;
  byId("verdict-source").hidden = !judged;
  write(byId("verdict-source"), judged ? camera(part.source) : "");
  write(byId("verdict-score"), judged ? compare(part) : explain(part, instead, status));
  write(byId("verdict-age"), part && !instead ? (part.age < 2 ? "now" : `${span(part.age)} ago`) : "");
  byId("view-title").classList.toggle("other", state.view === "rejected");
  write(byId("view-title"), state.view === "rejected" ? "Last reject" : "Picture");
}

function explain(part, instead, status) {
  if (instead === "NO CAMERA") {
    const away = lostCameras(status);
    const others = status.sources.length - away.length;
    const rest = others ? `; ${others} other${others > 1 ? "s" : ""} connected` : "";
    return `${away.map((source) => source.name).join(", ")} ${away.length > 1 ? "are" : "is"} away${rest}`;
  }
  if (instead) return "this is not a verdict";
  return part ? `for the next part; the last one was ${WORDS[part.verdict]}, ${camera(part.source)}` : "for the first part";
}

/* The word is as large as its tile allows, in whatever font this computer has. */
function fitWord() {
  const word = byId("verdict-word");
  word.parentElement.style.fontSize = "";
  const [room, taken] = [word.parentElement.clientWidth, word.offsetWidth];
  if (taken > room) {
    const size = parseFloat(getComputedStyle(word.parentElement).fontSize);
    word.parentElement.style.fontSize = `${Math.floor((size * room) / taken)}px`;
  }
}

let announced = 0;
function announce(words) {
  if (performance.now() - announced < 5000) return;
  announced = performance.now();
  byId("announce").textContent = words;
}

function renderStatus(status) {
  write(byId("model"), status.model);
  byId("recipe-fact").hidden = !status.recipe;
  write(byId("recipe"), status.recipe || "");
  write(byId("uptime"), span((new Date(status.time) - new Date(status.started)) / 1000));
  for (const name of Object.keys(WORDS)) write(byId(`count-${name}`), count(status[name]));
  const lost = status.dropped ? `${count(status.dropped)} dropped` : "none dropped";
  write(byId("frames"), `${count(status.captured)} frames: ${count(status.judged)} judged, ${count(status.faulted)} faulted, ${lost}, ${status.empty ? `${count(status.empty)} empty, ` : ""}${count(status.waiting)} waiting`);
  write(byId("threshold"), show(status.threshold));
  byId("review-fact").hidden = status.review_from === null;
  write(byId("review-from"), show(status.review_from));
  for (const name of ["p50", "p95", "p99", "worst"]) write(byId(name), status.latency.count ? status.latency[name].toFixed(1) : "–");
  renderHealth(status);
  const words = status.alarm || status.drift || status.message;
  byId("banner").hidden = !words;
  byId("banner").dataset.kind = status.alarm ? "alarm" : "note";
  write(byId("banner"), words || "");
}

function renderMoved(moved) {
  write(byId("moved"), moved ? `moved from ${show(moved.before)} by ${moved.who}, ${clock(moved.time)}` : "");
}

function renderHealth(status) {
  const rows = [
    ...status.sources.map((source) => ({
      kind: source.connected ? "on" : "off",
      name: source.name,
      facts: `${source.connected ? "connected" : "away"}${source.reconnects ? `, ${count(source.reconnects)} × reopened` : ""}`,
      message: source.connected ? "" : source.message,
    })),
    ...status.sinks.map((sink) => ({
      kind: sink.failed || sink.message ? "off" : sink.spooled ? "wait" : "on",
      name: sink.name,
      facts: [
        `${count(sink.delivered)} sent`,
        sink.queued ? `${count(sink.queued)} waiting` : "",
        sink.spooled ? `${count(sink.spooled)} on disk` : "",
        sink.failed ? `${count(sink.failed)} lost` : "",
      ].filter(Boolean).join(", "),
      message: sink.message,
    })),
  ].sort((one, other) => "off wait on".indexOf(one.kind) - "off wait on".indexOf(other.kind)); // trouble is seen first
  const list = byId("health");
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach((row, index) => {
    let item = list.children[index];
    if (!item) {
      item = document.createElement("li");
      item.append(make("span", "", "sign"), make("span"), make("span"), make("em"));
      list.append(item);
    }
    item.dataset.state = row.kind;
    write(item.children[0], { on: "●", wait: "◆", off: "▲" }[row.kind]);
    write(item.children[1], row.name);
    item.children[1].title = row.name;
    write(item.children[2], row.facts);
    write(item.children[3], row.message);
    item.children[3].hidden = !row.message;
  });
}

/* ---- the picture: asked for when the last one is on the screen, so a slow client only slows itself ---- */

let asking = null;
let shownNumber = 0;

async function lookForever() {
  let delay = PICTURE_PAUSE_MS;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, delay));
    delay = PICTURE_PAUSE_MS;
    if (document.hidden || !session.may_see) {
      delay = 500;
      continue;
    }
    asking = new AbortController();
    const asked = state.view;
    try {
      const address = `/picture?view=${asked}&heat=${state.heat ? 1 : 0}&after=${shownNumber}`;
      const answer = await fetch(address, { signal: asking.signal });
      if (!answer.ok) delay = 2000;
      else await hang(answer, asked);
    } catch (error) {
      if (error.name !== "AbortError") delay = 2000;
    }
  }
}

async function hang(answer, asked) {
  const part = JSON.parse(answer.headers.get("X-Onspect-Part"));
  if (!part || asked !== state.view) return;
  shownNumber = part.number;
  const received = performance.now();
  const picture = byId("picture");
  if (answer.status === 204) {
    picture.hidden = true;
    write(byId("no-picture"), "No picture came for this part");
    byId("no-picture").hidden = false;
  } else {
    const address = URL.createObjectURL(await answer.blob());
    const old = picture.src;
    picture.src = address;
    try {
      await picture.decode();
    } catch {
      /* replaced already */
    }
    if (old.startsWith("blob:")) URL.revokeObjectURL(old);
    picture.hidden = false;
    byId("no-picture").hidden = true;
  }
  state.shown = part;
  state.shownAt = performance.now();
  state.shownBorn = received - 1000 * part.age;
  describePicture(part);
  if (state.data) render();
}

function describePicture(part) {
  const regions = part.regions ? `${part.regions} region${part.regions > 1 ? "s" : ""}` : "";
  const facts = [WORDS[part.verdict], clock(part.time), part.part ? `part ${part.part}` : `no. ${part.index + 1}`, regions, part.source];
  write(byId("caption"), facts.filter(Boolean).join("  ·  "));
  byId("picture").alt = `${state.view === "latest" ? "The latest part" : "The last reject"}: ${facts[0]} ${regions}`;
}

function look(view, heat) {
  state.view = view;
  state.heat = heat;
  byId("view-latest").setAttribute("aria-pressed", String(view === "latest"));
  byId("view-rejected").setAttribute("aria-pressed", String(view === "rejected"));
  byId("heat").setAttribute("aria-pressed", String(heat));
  write(byId("no-picture"), view === "latest" ? "Waiting for the first picture" : "No part was rejected yet");
  if (view === "rejected" && !(state.data && state.data.rejected)) {
    byId("picture").hidden = true;
    byId("no-picture").hidden = false;
    write(byId("caption"), "\u00a0");
  }
  shownNumber = 0;
  state.shown = null;
  if (asking) asking.abort();
}

/* ---- the strip of scores ---- */

function drawScores() {
  const canvas = byId("scores");
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const [left, right, top, bottom] = [12, 46, 12, 10];
  const step = 7;
  const marks = state.marks.slice(-Math.floor((width - left - right) / step));
  if (!marks.length) return;
  const [, , , threshold, review] = marks[marks.length - 1];
  const scale = Math.max(...marks.map((mark) => mark[3])) * 1.9 || 1;
  const place = (score) => height - bottom - (Math.min(score, scale) / scale) * (height - top - bottom);
  const edge = width - right;

  pen.strokeStyle = colour("edge");
  pen.beginPath();
  pen.moveTo(0, place(0) + 0.5);
  pen.lineTo(edge, place(0) + 0.5);
  pen.stroke();

  const start = edge - marks.length * step;
  marks.forEach(([, , , cut, band], index) => {
    const from = index === 0 ? 0 : start + index * step;
    const wide = start + (index + 1) * step - from;
    pen.fillStyle = "rgb(255 122 77 / .09)";
    pen.fillRect(from, 0, wide, place(cut));
    pen.fillStyle = "rgb(244 199 82 / .16)";
    if (band !== null) pen.fillRect(from, place(cut), wide, place(band) - place(cut));
  });
  pen.lineWidth = 1.5;
  for (const [which, name, dash] of [[3, "ng", []], [4, "review", [5, 4]]]) {
    pen.strokeStyle = colour(name);
    pen.setLineDash(dash);
    pen.beginPath();
    let drawn = false;
    marks.forEach((mark, index) => {
      if (mark[which] === null) return;
      const x = index === 0 ? 0 : start + index * step;
      if (drawn) pen.lineTo(x, place(mark[which]));
      else pen.moveTo(x, place(mark[which]));
      pen.lineTo(start + (index + 1) * step, place(mark[which]));
      drawn = true;
    });
    pen.stroke();
  }
  pen.setLineDash([]);
  pen.lineWidth = 2;
  marks.forEach((mark, index) => drawMark(pen, mark, start + (index + 0.5) * step, place, height - bottom, scale, colour));

  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  pen.fillStyle = colour("ng");
  pen.fillText("NG", edge + 8, Math.min(place(threshold), review === null ? Infinity : place(review) - 13));
  if (review !== null) {
    pen.fillStyle = colour("review");
    pen.fillText("Rev.", edge + 8, place(review));
  }
  const counts = marks.reduce((sum, mark) => ({ ...sum, [mark[1]]: (sum[mark[1]] || 0) + 1 }), {});
  const words = Object.keys(WORDS).filter((name) => counts[name]).map((name) => `${counts[name]} ${WORDS[name]}`);
  canvas.setAttribute("aria-label", `Scores of the last ${marks.length} parts: ${words.join(", ")}; NG from ${show(threshold)}`);
}

/* Each verdict has a form of its own: a dot, a cross, a diamond, a triangle. */
function drawMark(pen, [, verdict, score], x, place, ground, scale, colour) {
  pen.strokeStyle = pen.fillStyle = colour(verdict);
  const y = score === null ? ground - 5 : place(score);
  pen.beginPath();
  if (verdict === "ok") {
    pen.arc(x, y, 2.2, 0, 7);
    pen.fill();
  } else if (verdict === "ng") {
    const r = 3.6;
    pen.moveTo(x - r, y - r);
    pen.lineTo(x + r, y + r);
    pen.moveTo(x + r, y - r);
    pen.lineTo(x - r, y + r);
    if (score > scale) { // beyond the strip
      pen.moveTo(x - r, y - r - 2);
      pen.lineTo(x, y - r - 6);
      pen.lineTo(x + r, y - r - 2);
    }
    pen.stroke();
  } else {
    const r = 4;
    pen.moveTo(x, y - r);
    if (verdict === "review") pen.lineTo(x + r, y);
    pen.lineTo(x + (verdict === "review" ? 0 : r), y + r);
    pen.lineTo(x - r, verdict === "review" ? y : y + r);
    pen.closePath();
    pen.fill();
  }
}

/* ---- hours and rejects ---- */

async function refreshHours() {
  let hours;
  try {
    ({ hours } = await ask("/hours"));
  } catch {
    return;
  }
  const total = (hour) => hour.ok + hour.ng + hour.review + hour.fault;
  const percent = (hour) => (total(hour) ? `${((100 * hour.ok) / total(hour)).toFixed(1)} %` : "–");
  const recent = hours.slice(-12);
  const most = Math.max(1, ...recent.map(total));
  byId("hours").replaceChildren(
    ...recent.map((hour) => {
      const start = new Date(hour.hour);
      const item = make("li");
      const bar = make("div", undefined, "bar");
      for (const name of ["fault", "review", "ng", "ok"]) {
        if (!hour[name]) continue;
        const piece = make("i", undefined, name);
        piece.style.height = `max(${(100 * hour[name]) / most}%, 2px)`;
        bar.append(piece);
      }
      item.title = `${start.toLocaleString("en-GB", { dateStyle: "short", timeStyle: "short" })}: ${percent(hour)} OK of ${total(hour)} (${hour.ng} NG, ${hour.review} review, ${hour.fault} fault)`;
      item.setAttribute("aria-label", item.title);
      item.append(bar, make("span", String(start.getHours()).padStart(2, "0")));
      return item;
    }),
  );
  const now = recent[recent.length - 1];
  write(byId("yield"), now ? percent(now) : "–");
  byId("yield").title = "of this hour's parts are OK";
}

let refreshing = 0;
let again = false;

async function refreshRejects() {
  if (refreshing) {
    again = true;
    return;
  }
  refreshing = setTimeout(() => {
    refreshing = 0;
    if (again) {
      again = false;
      refreshRejects();
    }
  }, 1500);
  try {
    const open = byId("reject").open ? state.rejects[state.open] : null;
    state.rejects = (await ask("/rejects")).rejects;
    if (open) state.open = Math.max(0, state.rejects.findIndex((one) => one.time === open.time && one.index === open.index));
  } catch {
    return;
  }
  renderRejects();
}

const small = (address) => (address.startsWith("/evidence/") ? `${address}?small=1` : address);

function renderRejects() {
  const list = byId("rejects");
  const have = new Map([...list.children].map((item) => [item.dataset.key, item]));
  const items = state.rejects.map((reject, index) => {
    const key = `${reject.time} ${reject.index} ${reject.picture} ${reject.label}`;
    const item = have.get(key) || makeReject(reject, key);
    item.dataset.index = index;
    return item;
  });
  list.replaceChildren(...(items.length ? items : [make("li", "No part was rejected yet", "empty")]));
  write(byId("gallery-note"), items.length ? "newest first" : "");
}

function makeReject(reject, key) {
  const item = make("li");
  item.dataset.key = key;
  const button = make("button");
  button.type = "button";
  button.setAttribute("aria-label", `${WORDS[reject.verdict]} at ${clock(reject.time)}, ${compare(reject)}${reject.label ? `, labelled ${reject.label}` : ""}`);
  const thumb = make("span", reject.picture ? "" : "no picture", "thumb");
  if (reject.picture) {
    const image = make("img");
    image.alt = "";
    image.src = small(reject.picture);
    image.onerror = () => {
      image.remove();
      thumb.textContent = "no picture";
    };
    thumb.append(image);
  }
  const tag = make("span", undefined, "tag");
  tag.dataset.verdict = reject.verdict;
  if (reject.label) button.dataset.label = reject.label;
  tag.append(shape(reject.verdict), make("b", reject.score === null ? WORDS[reject.verdict] : show(reject.score)), make("time", clock(reject.time).slice(0, 5)));
  button.append(thumb, tag);
  button.onclick = () => openReject(Number(item.dataset.index));
  item.append(button);
  return item;
}

function openReject(index) {
  const reject = state.rejects[index];
  if (!reject) return;
  state.open = index;
  write(byId("reject-title"), `${WORDS[reject.verdict]}: ${compare(reject)}`);
  const picture = byId("reject-picture");
  picture.hidden = !reject.picture;
  byId("reject-missing").hidden = Boolean(reject.picture);
  picture.alt = `${WORDS[reject.verdict]} part of ${clock(reject.time)}`;
  if (reject.picture) picture.src = reject.picture;
  const facts = [
    ["Time", new Date(reject.time).toLocaleString("en-GB")],
    ["Source", reject.source],
    ["Part", reject.part || `no. ${reject.index + 1}`],
    ["Model", reject.model],
    ["Latency", `${reject.latency_ms.toFixed(1)} ms`],
  ];
  byId("reject-facts").replaceChildren(
    ...facts.map(([name, value]) => {
      const row = make("div");
      row.append(make("dt", name), make("dd", value));
      return row;
    }),
  );
  renderRejectLabel(reject);
  byId("reject-newer").disabled = index === 0;
  byId("reject-older").disabled = index >= state.rejects.length - 1;
  if (!byId("reject").open) byId("reject").showModal();
}

/* ---- logging in, and the threshold ---- */

function renderSession() {
  renderLabelButtons();
  byId("access").hidden = !session.has_token;
  write(byId("access"), session.may_change ? "Log out" : "Log in");
  byId("change").disabled = !session.has_token;
  byId("change").title = session.has_token ? "Move the threshold (T)" : "To move the threshold here, start the line with --dashboard-token";
}

function openMove() {
  if (byId("change").disabled) return;
  if (!session.may_change) {
    logIn(openMove);
    return;
  }
  if (!state.data || !state.data.status) return;
  byId("move-error").textContent = "";
  byId("new-score").value = show(state.data.status.threshold);
  renderEffect();
  byId("move").showModal();
  byId("new-score").select();
}

function renderEffect() {
  const score = Number(byId("new-score").value);
  const judged = state.marks.filter((mark) => mark[2] !== null);
  if (!byId("new-score").value || !Number.isFinite(score) || !judged.length) {
    byId("effect").textContent = "";
    return;
  }
  const ng = (cut) => judged.filter((mark) => mark[2] >= cut).length;
  const now = state.data.status.threshold;
  byId("effect").textContent = `Of the last ${judged.length} parts that were judged, ${ng(score)} would be NG; with ${show(now)} it is ${ng(now)}.`;
}

byId("move").querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  try {
    await post("/threshold", { score: Number(byId("new-score").value), who: byId("who").value });
    byId("move").close();
  } catch (error) {
    byId("move-error").textContent = error.message;
  }
};

byId("new-score").oninput = renderEffect;
byId("change").onclick = openMove;
byId("access").onclick = async () => {
  if (!session.may_change) {
    logIn(null);
    return;
  }
  await post("/logout", {}).catch(() => {});
  location.reload();
};
byId("view-latest").onclick = () => look("latest", state.heat);
byId("view-rejected").onclick = () => look("rejected", state.heat);
byId("heat").onclick = () => look(state.view, !state.heat);
byId("reject-newer").onclick = () => openReject(state.open - 1);
byId("reject-older").onclick = () => openReject(state.open + 1);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  if (labelByKey(event)) return;
  if (byId("reject").open) {
    if (event.key === "ArrowLeft") openReject(state.open - 1);
    if (event.key === "ArrowRight") openReject(state.open + 1);
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  const key = event.key.toLowerCase();
  if (key === "l") look("latest", state.heat);
  else if (key === "r") look("rejected", state.heat);
  else if (key === "h") look(state.view, !state.heat);
  else if (key === "t") openMove();
  else return;
  event.preventDefault();
});

/* ---- begin ---- */

let listening = false;

async function begin() {
  try {
    session = await ask("/session");
  } catch {
    setTimeout(begin, 3000);
    return;
  }
  renderSession();
  if (!session.may_see) {
    if (!byId("login").open) logIn(null);
    return;
  }
  if (!listening) {
    listening = true;
    lookForever();
  }
  if (!state.stream || state.stream.readyState === EventSource.CLOSED) state.stream = listen();
}

function listen() {
  const stream = new EventSource("/events");
  stream.onmessage = (event) => hear(JSON.parse(event.data));
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) setTimeout(begin, 3000); // refused: logged out, or too many pages
  };
  return stream;
}

setInterval(() => {
  write(byId("clock"), new Date().toLocaleTimeString("en-GB"));
  render();
}, 1000);
setInterval(() => session.may_see && refreshHours(), 15000);
new ResizeObserver(drawScores).observe(byId("scores"));
new ResizeObserver(fitWord).observe(byId("verdict"));
write(byId("clock"), new Date().toLocaleTimeString("en-GB"));
document.addEventListener("DOMContentLoaded", begin); // when labels.js is there too
