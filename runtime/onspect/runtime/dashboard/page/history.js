"use strict";

const NOT_KEPT = "The camera's own picture of this part is not kept, so it cannot be labelled";
const show = (number) => String(Number(number.toPrecision(4)));

let place = null; // x, y, width, height in pixels, chosen by a click on a bar
let asked = "";
let last = null;

/* A time of this computer's clock as the server wants it, in UTC. */
const utc = (id) => (byId(id).value ? new Date(byId(id).value).toISOString() : "");

function question() {
  const given = { verdict: byId("verdict").value, since: utc("since"), until: utc("until"), source: byId("source").value, part: byId("part").value.trim(), region: place ? place.join(",") : "" };
  const filled = new URLSearchParams(Object.entries(given).filter(([, value]) => value));
  return filled.toString();
}

async function find() {
  asked = question();
  last = null;
  byId("error").textContent = "";
  const span = new URLSearchParams(Object.entries({ since: utc("since"), until: utc("until") }).filter(([, value]) => value));
  byId("report-html").href = `/report?${span}`;
  byId("report-csv").href = `/report?${span}${span.size ? "&" : ""}format=csv`;
  byId("clear-place").hidden = !place;
  try {
    const mine = asked;
    const [summary, found] = await Promise.all([ask(`/history/summary?${mine}`), ask(`/history/parts?${mine}`)]);
    if (mine !== asked) return;
    renderSummary(summary);
    byId("parts").replaceChildren();
    renderParts(found);
  } catch (error) {
    byId("error").textContent = error.message;
  }
}

function bar(words, count, most, act) {
  const item = make("li");
  const row = make(act ? "button" : "div");
  const fill = make("i");
  fill.style.width = `${(100 * count) / most}%`;
  row.append(make("span", words), fill, make("b", String(count)));
  if (act) {
    row.type = "button";
    row.onclick = act;
  }
  item.append(row);
  return item;
}

function bars(id, rows) {
  const most = Math.max(1, ...rows.map(([, count]) => count));
  byId(id).replaceChildren(...(rows.length ? rows.map(([words, count, act]) => bar(words, count, most, act)) : [make("li", "none", "note")]));
}

function renderSummary(summary) {
  const share = summary.good_share === null ? "" : `, ${(100 * summary.good_share).toFixed(1)} % OK`;
  const counts = Object.keys(WORDS).filter((name) => summary.counts[name]).map((name) => `${summary.counts[name]} ${WORDS[name]}`);
  byId("counts").textContent = `${summary.total} parts${counts.length ? `: ${counts.join(", ")}` : ""}${share}`;
  const chosen = byId("source").value;
  byId("source").replaceChildren(make("option", "all"), ...summary.cameras.map((name) => make("option", name)));
  byId("source").firstChild.value = "";
  byId("source").value = summary.cameras.includes(chosen) ? chosen : "";
  bars("places", summary.places.slice(0, 8).map((one) => [`x ${one.x}–${one.x + one.width}, y ${one.y}–${one.y + one.height}`, one.parts, () => choosePlace(one)]));
  bars("scores", summary.scores.filter((one) => one.parts).map((one) => [one.highest === null ? `${show(one.lowest)} and more` : `${show(one.lowest)} to ${show(one.highest)}`, one.parts]));
  bars("faults", Object.entries(summary.faults).slice(0, 8));
}

function choosePlace(one) {
  place = [one.x, one.y, one.width, one.height];
  find();
}

function renderParts({ parts, more }) {
  for (const part of parts) {
    last = part.number;
    byId("parts").append(makePart(part));
  }
  if (!byId("parts").children.length) byId("parts").append(make("li", "No part matches", "note"));
  byId("more").hidden = !more;
}

function makePart(part) {
  const item = make("li");
  item.record = part;
  const link = make(part.picture ? "a" : "div", undefined, "thumb");
  if (part.picture) {
    link.href = part.picture;
    link.target = "_blank";
    const image = make("img");
    image.src = `${part.picture}?small=1`;
    image.alt = `${WORDS[part.verdict]} part`;
    image.loading = "lazy";
    link.append(image);
  } else link.textContent = "no picture";
  const words = part.score === null ? part.reason : `${show(part.score)}, NG from ${show(part.threshold)}`;
  const tag = make("b", WORDS[part.verdict]);
  tag.dataset.verdict = part.verdict;
  item.append(link, tag, make("span", words), make("span", `${part.source}, ${part.part ? `part ${part.part}` : `no. ${part.index + 1}`}`), make("time", new Date(part.time).toLocaleString("en-GB")));
  if (hasLabels() && part.verdict !== "fault") {
    item.tabIndex = 0;
    item.setAttribute("aria-keyshortcuts", "g b");
    item.append(makeLabelButtons(item));
    renderLabel(item);
  }
  return item;
}

/* ---- labels ---- */

const hasLabels = () => session.has_token && session.has_labels;

function makeLabelButtons(item) {
  const group = make("span", undefined, "switch");
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Label this part");
  for (const label of ["good", "bad"]) {
    const button = make("button", label === "good" ? "Good" : "Bad");
    button.type = "button";
    button.dataset.give = label;
    button.onclick = () => labelItem(item, label);
    group.append(button);
  }
  group.append(make("span", "", "note"));
  return group;
}

function renderLabel(item) {
  const { label, label_who: by, kept } = item.record;
  if (label) item.dataset.label = label;
  for (const button of item.querySelectorAll("[data-give]")) {
    button.disabled = !kept;
    button.setAttribute("aria-pressed", String(button.dataset.give === label));
    button.title = kept ? `This part is ${button.dataset.give} (${button.dataset.give[0].toUpperCase()})` : NOT_KEPT;
  }
  write(item.querySelector(".note"), label ? `by ${by}` : "");
}

function labelItem(item, label) {
  if (!item.record.kept) {
    toast(NOT_KEPT);
    return;
  }
  sendLabel(item.record, label, (given, by) => {
    for (const one of byId("parts").children) { // the list may be another one by now
      if (!one.record || one.record.number !== item.record.number) continue;
      Object.assign(one.record, { label: given, label_who: by });
      renderLabel(one);
    }
  });
}

/* The part that is chosen: what was clicked last, or reached by Tab or the arrow keys. */
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select") || document.querySelector("dialog[open]")) return;
  const item = document.activeElement.closest("#parts > li");
  const label = { g: "good", b: "bad" }[event.key.toLowerCase()];
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (label && item && item.record && item.record.verdict !== "fault") labelItem(item, label);
  else if (step && hasLabels()) {
    const items = [...byId("parts").querySelectorAll("li[tabindex]")];
    const next = items[item ? items.indexOf(item) + step : 0];
    if (next) next.focus();
  } else return;
  event.preventDefault();
});

byId("filter").onsubmit = (event) => {
  event.preventDefault();
  find();
};
for (const id of ["verdict", "source"]) byId(id).onchange = find;
byId("clear-place").onclick = () => {
  place = null;
  find();
};
byId("more").onclick = async () => {
  try {
    renderParts(await ask(`/history/parts?${asked}&before=${last}`));
  } catch (error) {
    byId("error").textContent = error.message;
  }
};

async function begin() {
  const before = session.may_see;
  try {
    session = await ask("/session");
  } catch (error) {
    byId("error").textContent = error.message;
    return;
  }
  byId("keys").hidden = !hasLabels();
  if (!session.may_see) logIn(null);
  else if (!before) await find();
}

begin();
