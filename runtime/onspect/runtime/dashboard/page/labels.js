"use strict";

/* Labels, teaching one part, and the log of changes; uses what session.js and dashboard.js define. */

const KINDS = { label: "Label", add: "Taught", undo: "Taken back", threshold: "Threshold", swap: "Model", teach: "Put into service" };

const percent = (share) => `${(100 * share).toFixed(1)} %`;

let previewed = null;
let proposed = null;

function renderLabelButtons() {
  const there = session.has_token && session.has_labels;
  byId("live-labels").hidden = byId("reject-labels").hidden = byId("changes").hidden = !there;
}

function renderRejectLabel(reject) {
  byId("reject-good").setAttribute("aria-pressed", String(reject.label === "good"));
  byId("reject-bad").setAttribute("aria-pressed", String(reject.label === "bad"));
  const possible = reject.verdict !== "fault";
  byId("reject-good").disabled = byId("reject-bad").disabled = !possible;
  byId("reject-teach").hidden = reject.label !== "good";
  const words = reject.label ? `labelled ${reject.label} by ${reject.label_who}` : possible ? "" : "a part that was not judged has no label";
  write(byId("reject-label"), words);
}

function labelPart(part, label) {
  if (!part) return;
  sendLabel(part, label, (given, by) => {
    for (const reject of state.rejects) {
      if (reject.time !== part.time || reject.index !== part.index) continue;
      reject.label = given;
      reject.label_who = by;
      if (byId("reject").open && state.rejects[state.open] === reject) renderRejectLabel(reject);
    }
    renderRejects();
  });
}

const openedReject = () => (byId("reject").open ? state.rejects[state.open] : null);

function labelByKey(event) {
  const key = event.key.toLowerCase();
  if (byId("live-labels").hidden || !"gbec".includes(key) || key.length !== 1) return false;
  const reject = openedReject();
  if (!reject && document.querySelector("dialog[open]")) return false;
  if (reject && document.querySelectorAll("dialog[open]").length > 1) return false;
  if (key === "c" && !reject) openAudit();
  else if (key === "e" && reject && reject.label === "good") openTeach(reject);
  else if (key === "g" || key === "b") labelPart(reject || state.shown, key === "g" ? "good" : "bad");
  else return false;
  event.preventDefault();
  return true;
}

byId("live-good").onclick = () => labelPart(state.shown, "good");
byId("live-bad").onclick = () => labelPart(state.shown, "bad");
byId("reject-good").onclick = () => labelPart(openedReject(), "good");
byId("reject-bad").onclick = () => labelPart(openedReject(), "bad");
byId("reject-teach").onclick = () => openTeach(openedReject());

/* ---- teaching one part ---- */

function openTeach(reject) {
  withName(async () => {
    previewed = null;
    byId("teach-accept").disabled = true;
    byId("teach-error").textContent = "";
    byId("teach-changes").replaceChildren();
    write(byId("teach-words"), "The parts of the last day are being judged again …");
    byId("teach").showModal();
    try {
      renderPreview(await post("/lessons/preview", keyOf(reject)));
    } catch (error) {
      write(byId("teach-words"), "");
      byId("teach-error").textContent = error.message;
    }
  });
}

function renderPreview(preview) {
  previewed = preview;
  const others = preview.changed === 1 ? "1 verdict" : `${preview.changed} verdicts`;
  const cut = preview.threshold === preview.running_threshold ? "" : ` The moved threshold ${show(preview.running_threshold)} ends: the file has ${show(preview.threshold)}.`;
  write(byId("teach-words"), `This part would score ${show(preview.score)}; NG from ${show(preview.threshold)}. Of ${preview.judged} kept parts of the last day, ${others} would change.${cut} ${preview.left} parts may still be taught in this shift.`);
  byId("teach-changes").replaceChildren(...preview.changes.map((change) => {
    const item = make("li");
    const image = make("img");
    image.src = change.picture;
    image.alt = "";
    item.append(image, make("span", `${WORDS[change.before]} → ${WORDS[change.after]}`), make("time", clock(change.time)));
    if (change.label) item.dataset.label = change.label;
    return item;
  }));
  byId("teach-error").textContent = preview.missed ? `${preview.missed} parts that are labelled bad would pass, so this part cannot be taught.` : "";
  byId("teach-accept").disabled = Boolean(preview.missed);
}

byId("teach-accept").onclick = async () => {
  byId("teach-accept").disabled = true;
  try {
    await post("/lessons/accept", { id: previewed.id, who });
    byId("teach").close();
    toast("Taught: the next part is judged with it");
  } catch (error) {
    byId("teach-error").textContent = error.message;
  }
};

/* ---- the log of changes ---- */

function openAudit() {
  withName(async () => {
    proposed = null;
    byId("apply-proposal").hidden = true;
    write(byId("audit-note"), "");
    byId("audit").showModal();
    await refreshAudit();
  });
}

async function refreshAudit() {
  try {
    const [log, desk] = [await ask("/audit"), await ask("/labels")];
    write(byId("audit-state"), log.broken.length ? `The log was changed: ${log.broken.join("; ")}` : `${desk.good} good and ${desk.bad} bad labels; the log is complete`);
    byId("audit-state").classList.toggle("wrong", Boolean(log.broken.length));
    byId("undo").disabled = !desk.can_undo;
    byId("audit-rows").replaceChildren(...log.changes.map((change) => {
      const item = make("li");
      item.append(make("time", new Date(change.time).toLocaleString("en-GB")), make("b", KINDS[change.kind] || change.kind), make("span", change.who || "another command"), make("span", describeChange(change), "what"));
      return item;
    }));
  } catch (error) {
    write(byId("audit-state"), error.message);
  }
}

function describeChange({ kind, facts }) {
  if ("unreadable" in facts) return "this row was tampered with";
  if (kind === "label") return `${facts.label}: ${camera(facts.part.source)} no. ${facts.part.index + 1}, ${clock(facts.part.time)}, was ${WORDS[facts.verdict]}`;
  if (kind === "add") return `${camera(facts.part.source)} no. ${facts.part.index + 1}, ${clock(facts.part.time)}, into ${facts.model}`;
  if (kind === "undo") return `change ${facts.addition}, from ${facts.model}`;
  if (kind === "threshold" && facts.undo) return `${show(facts.before)} taken back`;
  if (kind === "threshold") return `${show(facts.before)} → ${show(facts.score)}`;
  if (kind === "swap") return `${facts.before.model} → ${facts.after.model}`;
  return facts.model || "";
}

byId("changes").onclick = openAudit;
byId("undo").onclick = async () => {
  byId("undo").disabled = true;
  try {
    await post("/lessons/undo", { who });
    write(byId("audit-note"), "Undone: the next part is judged without it.");
  } catch (error) {
    write(byId("audit-note"), error.message);
  }
  await refreshAudit();
};

byId("propose").onclick = async () => {
  byId("apply-proposal").hidden = true;
  write(byId("audit-note"), "The labelled parts are being judged again …");
  let found;
  try {
    found = await ask("/labels/proposal");
  } catch (error) {
    write(byId("audit-note"), error.message);
    return;
  }
  proposed = found;
  write(byId("audit-note"), `NG from ${show(found.score)} (any value from ${show(found.lowest)} to ${show(found.highest)} gives the same result). Of ${found.bad} bad parts it misses ${found.missed}: below ${percent(found.missed_at_most)} with 95 % confidence. Of ${found.good} good parts it rejects ${found.rejected}: below ${percent(found.rejected_at_most)}. Labelled parts are mostly rejects, not a random sample.`);
  byId("apply-proposal").hidden = false;
  write(byId("apply-proposal"), `Apply ${show(found.score)}`);
};

byId("apply-proposal").onclick = async () => {
  byId("apply-proposal").hidden = true;
  try {
    await post("/threshold", { score: proposed.score, who });
    write(byId("audit-note"), `NG from ${show(proposed.score)}, from the next part on.`);
  } catch (error) {
    write(byId("audit-note"), error.message);
  }
  await refreshAudit();
};
