"use strict";
// Draws a region on a picture. All coordinates of shapes are whole pixels of the picture.

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), pen = canvas.getContext("2d");
const COLOURS = { inspect: "#4ec9a5", ignore: "#ff7a4d", reference: "#8fd3ff" };
const NAMES = { inspect: "Inspected", ignore: "Ignored", reference: "Reference" };
const HINTS = {
  select: "Click a shape to choose it, drag it to move it. Arrow keys move it by 1 pixel, with Shift by 10. Delete removes it.",
  rectangle: "Drag a rectangle around what is inspected.",
  polygon: "Click the corners of what is inspected. Enter or a double click closes it, Escape cancels it.",
  "ignore-rectangle": "Drag a rectangle around what is ignored.",
  "ignore-polygon": "Click the corners of what is ignored. Enter or a double click closes it, Escape cancels it.",
  reference: "Drag a rectangle around the structure by which the part is found wherever it is.",
};
const KEYS = { v: "select", r: "rectangle", p: "polygon", i: "ignore-rectangle", o: "ignore-polygon", f: "reference" };

let picture = null, number = -1, width = 0, height = 0;
let live = false, frozen = false;
let shapes = [], chosen = -1, past = [], unsaved = false;
let tool = "rectangle", draft = null, grip = null, pan = null;
let zoom = 1, left = 0, top_ = 0, fitted = true;

// The view

function resize() {
  const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(box.width * ratio));
  canvas.height = Math.max(1, Math.round(box.height * ratio));
  if (fitted) fit(); else draw();
}

function fit() {
  const box = canvas.getBoundingClientRect();
  zoom = width ? Math.min((box.width - 24) / width, (box.height - 24) / height) : 1;
  left = (box.width - width * zoom) / 2;
  top_ = (box.height - height * zoom) / 2;
  fitted = true;
  draw();
}

function zoomBy(factor, x, y) {
  const box = canvas.getBoundingClientRect();
  const at = [x === undefined ? box.width / 2 : x, y === undefined ? box.height / 2 : y];
  const wanted = Math.min(40, Math.max(0.05, zoom * factor));
  left = at[0] - (at[0] - left) * wanted / zoom;
  top_ = at[1] - (at[1] - top_) * wanted / zoom;
  zoom = wanted;
  fitted = false;
  draw();
}

function toPicture(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left - left) / zoom, (event.clientY - box.top - top_) / zoom];
}

const clamp = (value, most) => Math.min(most, Math.max(0, value));

function draw() {
  const ratio = window.devicePixelRatio || 1;
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.setTransform(ratio * zoom, 0, 0, ratio * zoom, ratio * left, ratio * top_);
  pen.imageSmoothingEnabled = zoom < 3;
  if (picture) pen.drawImage(picture, 0, 0, width, height);
  if (shapes.some((shape) => shape.kind === "inspect")) shade();
  shapes.forEach((shape, index) => outline(shape, index === chosen));
  if (draft) outline(draft, true);
}

function trace(shape) {
  if (shape.points) shape.points.forEach((p, i) => (i ? pen.lineTo(p[0] + 0.5, p[1] + 0.5) : pen.moveTo(p[0] + 0.5, p[1] + 0.5)));
  else pen.rect(shape.x, shape.y, shape.width, shape.height);
}

function shade() { // what is not inspected is darker
  pen.save();
  pen.beginPath();
  pen.rect(0, 0, width, height);
  pen.clip();
  const layer = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  layer.setTransform(pen.getTransform());
  layer.fillStyle = "rgb(5 8 10 / .62)";
  layer.fillRect(0, 0, width, height);
  layer.globalCompositeOperation = "destination-out";
  layer.fillStyle = "#000";
  const keep = pen;
  for (const shape of shapes.filter((one) => one.kind === "inspect")) {
    layer.beginPath();
    if (shape.points) shape.points.forEach((p, i) => (i ? layer.lineTo(p[0] + 0.5, p[1] + 0.5) : layer.moveTo(p[0] + 0.5, p[1] + 0.5)));
    else layer.rect(shape.x, shape.y, shape.width, shape.height);
    layer.fill();
  }
  keep.setTransform(1, 0, 0, 1, 0, 0);
  keep.drawImage(layer.canvas, 0, 0);
  pen.restore();
}

function outline(shape, strong) {
  const colour = COLOURS[shape.kind];
  pen.beginPath();
  trace(shape);
  if (shape.points && shape !== draft) pen.closePath();
  if (shape.kind === "ignore" && shape !== draft) { pen.fillStyle = "rgb(255 122 77 / .38)"; pen.fill(); }
  pen.lineWidth = (strong ? 3 : 2) / zoom;
  pen.setLineDash(shape.kind === "reference" ? [8 / zoom, 5 / zoom] : []);
  pen.strokeStyle = colour;
  pen.stroke();
  pen.setLineDash([]);
  if (!strong) return;
  pen.fillStyle = colour;
  const size = 8 / zoom;
  for (const [x, y] of handles(shape)) pen.fillRect(x - size / 2, y - size / 2, size, size);
}

function handles(shape) {
  if (shape.points) return shape.points.map((p) => [p[0] + 0.5, p[1] + 0.5]);
  const { x, y, width: w, height: h } = shape;
  return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]];
}

// The shapes

function remember() {
  past.push(JSON.stringify(shapes));
  if (past.length > 100) past.shift();
}

function changed() {
  unsaved = true;
  pill("wait", shapes.length ? "Not saved" : "Nothing drawn");
  list();
  draw();
}

function add(shape) {
  remember();
  if (shape.kind === "reference") shapes = shapes.filter((one) => one.kind !== "reference");
  shapes.push(shape);
  chosen = shapes.length - 1;
  changed();
}

function remove(index) {
  if (index < 0 || index >= shapes.length) return;
  remember();
  shapes.splice(index, 1);
  chosen = -1;
  changed();
}

function undo() {
  if (!past.length) return;
  shapes = JSON.parse(past.pop());
  chosen = -1;
  changed();
}

function move(shape, dx, dy) {
  if (shape.points) {
    const xs = shape.points.map((p) => p[0]), ys = shape.points.map((p) => p[1]);
    dx = Math.min(width - 1 - Math.max(...xs), Math.max(-Math.min(...xs), dx));
    dy = Math.min(height - 1 - Math.max(...ys), Math.max(-Math.min(...ys), dy));
    shape.points = shape.points.map((p) => [p[0] + dx, p[1] + dy]);
  } else {
    shape.x = clamp(shape.x + dx, width - shape.width);
    shape.y = clamp(shape.y + dy, height - shape.height);
  }
}

function find(x, y) {
  for (let index = shapes.length - 1; index >= 0; index--) {
    pen.save();
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.beginPath();
    trace(shapes[index]);
    const inside = pen.isPointInPath(x, y);
    pen.restore();
    if (inside) return index;
  }
  return -1;
}

function list() {
  const items = shapes.map((shape, index) => {
    const item = document.createElement("li");
    item.dataset.kind = shape.kind;
    item.dataset.chosen = String(index === chosen);
    const name = document.createElement("button");
    name.type = "button";
    name.className = "name";
    name.textContent = `${NAMES[shape.kind]}: ${shape.points ? `polygon of ${shape.points.length} corners` : "rectangle"}`;
    name.addEventListener("click", () => { chosen = index; choose("select"); list(); draw(); canvas.focus(); });
    const gone = document.createElement("button");
    gone.type = "button";
    gone.className = "remove";
    gone.textContent = "Remove";
    gone.addEventListener("click", () => remove(index));
    item.append(name, gone);
    if (!shape.points) item.append(numbers(shape, index));
    return item;
  });
  $("shapes").replaceChildren(...items);
  $("empty").hidden = shapes.some((shape) => shape.kind === "inspect");
  $("search").hidden = !shapes.some((shape) => shape.kind === "reference");
  $("undo").disabled = !past.length;
}

function numbers(shape, index) {
  const row = document.createElement("div");
  row.className = "numbers";
  for (const [key, word] of [["x", "x"], ["y", "y"], ["width", "width"], ["height", "height"]]) {
    const label = document.createElement("label"), input = document.createElement("input");
    input.type = "number";
    input.min = key === "width" || key === "height" ? "1" : "0";
    input.value = shape[key];
    input.addEventListener("change", () => {
      remember();
      const whole = Math.round(Number(input.value)) || 0;
      const most = { x: width - 1, y: height - 1, width: width - shape.x, height: height - shape.y }[key];
      shape[key] = Math.min(most, Math.max(Number(input.min), whole));
      shape.width = Math.min(shape.width, width - shape.x);
      shape.height = Math.min(shape.height, height - shape.y);
      chosen = index;
      changed();
    });
    label.append(word, input);
    row.append(label);
  }
  return row;
}

function choose(name) {
  tool = name;
  draft = null;
  canvas.dataset.tool = name;
  $("hint").textContent = HINTS[name];
  for (const button of $("tools").children) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  draw();
}

// Drawing

const kindOf = (name) => (name.startsWith("ignore") ? "ignore" : name === "reference" ? "reference" : "inspect");

function span(from, to) {
  const x = clamp(Math.floor(Math.min(from[0], to[0])), width - 1), y = clamp(Math.floor(Math.min(from[1], to[1])), height - 1);
  const right = clamp(Math.ceil(Math.max(from[0], to[0])), width), bottom = clamp(Math.ceil(Math.max(from[1], to[1])), height);
  return { x, y, width: Math.max(1, right - x), height: Math.max(1, bottom - y) };
}

canvas.addEventListener("pointerdown", (event) => {
  if (!picture) return;
  canvas.focus();
  canvas.setPointerCapture(event.pointerId);
  const at = toPicture(event);
  if (event.button === 1 || event.ctrlKey) { pan = [event.clientX, event.clientY]; return; }
  if (event.button !== 0) return;
  if (tool === "select") {
    const near = chosen < 0 ? -1 : handles(shapes[chosen]).findIndex(([x, y]) => Math.hypot(x - at[0], y - at[1]) < 9 / zoom);
    if (near < 0) chosen = find(...at);
    if (chosen >= 0) { remember(); grip = { at, corner: near, before: structuredClone(shapes[chosen]), moved: false }; }
    list();
    draw();
  } else if (tool.endsWith("polygon")) {
    const corner = [clamp(Math.floor(at[0]), width - 1), clamp(Math.floor(at[1]), height - 1)];
    if (!draft) draft = { kind: kindOf(tool), points: [] };
    const last = draft.points[draft.points.length - 1];
    if (!last || last[0] !== corner[0] || last[1] !== corner[1]) draft.points.push(corner);
    draw();
  } else {
    draft = { kind: kindOf(tool), from: at, ...span(at, at) };
    draw();
  }
});

canvas.addEventListener("pointermove", (event) => {
  const at = toPicture(event);
  if (pan) {
    left += event.clientX - pan[0];
    top_ += event.clientY - pan[1];
    pan = [event.clientX, event.clientY];
    fitted = false;
    draw();
  } else if (grip) {
    const shape = structuredClone(grip.before), dx = Math.round(at[0] - grip.at[0]), dy = Math.round(at[1] - grip.at[1]);
    grip.moved = grip.moved || dx !== 0 || dy !== 0;
    if (grip.corner < 0) move(shape, dx, dy);
    else if (shape.points) shape.points[grip.corner] = [clamp(Math.floor(at[0]), width - 1), clamp(Math.floor(at[1]), height - 1)];
    else Object.assign(shape, span(handles(grip.before)[(grip.corner + 2) % 4], at));
    shapes[chosen] = shape;
    draw();
  } else if (draft && draft.from) {
    Object.assign(draft, span(draft.from, at));
    draw();
  }
});

canvas.addEventListener("pointerup", () => {
  pan = null;
  if (grip) {
    if (grip.moved) changed(); else past.pop();
    grip = null;
  } else if (draft && draft.from) {
    const { kind, x, y, width: w, height: h } = draft;
    draft = null;
    if (w > 2 && h > 2) add({ kind, x, y, width: w, height: h }); else draw();
  }
});

canvas.addEventListener("dblclick", close);
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = canvas.getBoundingClientRect();
  zoomBy(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });

function close() {
  if (!draft || !draft.points) return;
  const shape = draft;
  draft = null;
  if (shape.points.length >= 3) add(shape); else draw();
}

document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
  if (event.key === "s" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save(); return; }
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); undo(); return; }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (KEYS[key]) choose(KEYS[key]);
  else if (key === "s") save();
  else if (key === "u") undo();
  else if (key === "+" || key === "=") zoomBy(1.25);
  else if (key === "-") zoomBy(0.8);
  else if (key === "0") fit();
  else if (key === "Enter" && draft) close();
  else if (key === "Escape") { draft = null; chosen = -1; list(); draw(); }
  else if ((key === "Delete" || key === "Backspace") && chosen >= 0) remove(chosen);
  else if (key === " " && live && event.target.tagName !== "BUTTON") { event.preventDefault(); freeze(!frozen); }
  else if (arrows[key]) {
    event.preventDefault();
    const [dx, dy] = arrows[key], step = event.shiftKey ? 10 : 1;
    if (chosen >= 0) { remember(); move(shapes[chosen], dx * step, dy * step); changed(); }
    else { left -= dx * 40; top_ -= dy * 40; fitted = false; draw(); }
  }
});

// The server

function say(kind, words) {
  const banner = $("banner");
  banner.textContent = words;
  banner.dataset.kind = kind;
  banner.hidden = !words;
}

function pill(state, words) {
  $("saved").dataset.state = state;
  $("saved").lastElementChild.textContent = words;
}

async function load(wanted) {
  const answer = await fetch(wanted < 0 ? "/picture" : `/picture?number=${wanted}`);
  if (!answer.ok) { say("error", (await answer.json()).error); return; }
  const bitmap = await createImageBitmap(await answer.blob());
  const first = !picture, before = [width, height];
  picture = bitmap;
  number = Number(answer.headers.get("X-Onspect-Number"));
  [width, height] = answer.headers.get("X-Onspect-Size").split("x").map(Number);
  $("size").textContent = `${width} x ${height} pixels`;
  if (first || before[0] !== width || before[1] !== height) fit(); else draw();
}

async function follow() {
  while (live) {
    if (!frozen) {
      try { await load(-1); } catch (error) { say("error", "Onspect does not answer."); }
    }
    await new Promise((done) => setTimeout(done, 200));
  }
}

function freeze(still) {
  frozen = still;
  $("freeze").setAttribute("aria-pressed", String(still));
}

function describe() {
  const rectangle = (shape) => [shape.x, shape.y, shape.width, shape.height];
  const of = (kind, points) => shapes.filter((shape) => shape.kind === kind && Boolean(shape.points) === points);
  const body = {
    number,
    frame: [width, height],
    rectangles: of("inspect", false).map(rectangle),
    polygons: of("inspect", true).map((shape) => shape.points),
    ignore: { rectangles: of("ignore", false).map(rectangle), polygons: of("ignore", true).map((shape) => shape.points) },
  };
  const [reference] = of("reference", false);
  if (reference) body.reference = { patch: rectangle(reference), turn: Number($("turn").value), scale: Number($("scale").value) / 100 };
  return body;
}

async function save() {
  if (!picture) return;
  if (live && !frozen) freeze(true);
  try {
    const answer = await fetch("/region", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(describe()) });
    const content = await answer.json();
    if (!answer.ok) { pill("off", "Not saved"); say("error", content.error); return; }
    unsaved = false;
    pill("on", "Saved");
    say("note", `Saved. Next: onspect teach GOOD --roi ${content.output} -o part.onnx`);
  } catch (error) {
    pill("off", "Not saved");
    say("error", "Onspect does not answer: the region is not saved. Start 'onspect roi' again and reload nothing until then.");
  }
}

function show(region) {
  const rectangle = (kind) => ([x, y, w, h]) => shapes.push({ kind, x, y, width: w, height: h });
  const polygon = (kind) => (points) => shapes.push({ kind, points });
  region.rectangles.forEach(rectangle("inspect"));
  region.polygons.forEach(polygon("inspect"));
  region.ignore.rectangles.forEach(rectangle("ignore"));
  region.ignore.polygons.forEach(polygon("ignore"));
  if (region.reference) {
    if (region.reference.patch) rectangle("reference")(region.reference.patch);
    $("turn").value = region.reference.turn;
    $("scale").value = Math.round(region.reference.scale * 100);
  }
}

async function begin() {
  choose("rectangle");
  const state = await (await fetch("/state")).json();
  live = state.live;
  $("output").textContent = state.output;
  $("freeze").hidden = !live;
  $("pictures").hidden = state.names.length < 2;
  $("pictures").replaceChildren(...state.names.map((name, index) => new Option(name, String(index))));
  show(state.region);
  if (shapes.length) pill("on", "As in the file");
  list();
  if (live) follow(); else await load(0);
  if (state.region.frame && picture && (state.region.frame[0] !== width || state.region.frame[1] !== height))
    say("error", `The file was drawn on ${state.region.frame[0]} x ${state.region.frame[1]} pixels, and this picture has ${width} x ${height}.`);
  document.body.dataset.ready = "true";
}

$("tools").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) choose(button.dataset.tool);
});
$("save").addEventListener("click", save);
$("undo").addEventListener("click", undo);
$("zoom-in").addEventListener("click", () => zoomBy(1.25));
$("zoom-out").addEventListener("click", () => zoomBy(0.8));
$("zoom-fit").addEventListener("click", fit);
$("freeze").addEventListener("click", () => freeze(!frozen));
$("pictures").addEventListener("change", (event) => load(Number(event.target.value)));
for (const id of ["turn", "scale"]) $(id).addEventListener("change", changed);
window.addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
new ResizeObserver(resize).observe(canvas);
begin().catch(() => say("error", "Onspect does not answer."));
