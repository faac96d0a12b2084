"use strict";

const WORDS = { ok: "OK", ng: "NG", review: "REVIEW", fault: "FAULT" };
const byId = (id) => document.getElementById(id);
const show = (number) => String(Number(number.toPrecision(4)));

let place = null; // x, y, width, height in pixels, chosen by a click on a bar
let asked = "";
let last = null;

function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

async function ask(address) {
  const answer = await fetch(address);
  const content = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new Error("log in on the live page first");
  if (!answer.ok) throw new Error(content.error || `the server answers ${answer.status}`);
  return content;
}

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
    const item = make("li");
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
    byId("parts").append(item);
  }
  if (!byId("parts").children.length) byId("parts").append(make("li", "No part is like this", "note"));
  byId("more").hidden = !more;
}

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
find();
