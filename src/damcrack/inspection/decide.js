"use strict";
// The findings of all photos, what was decided on each, and the file of decisions. See decisions.py for the format.
const desk = (() => {
  class Finding {
    constructor(photo, place) {
      Object.assign(this, { photo, place, decision: null });
    }

    get lines() {
      return drawing(this.photo).lines[this.place];
    }
  }

  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const settings = read("settings"), photos = read("facts-of-photos");
  const drawings = Array.from(document.querySelectorAll("script.drawing"));
  const FORMAT = "damcrack decisions", VERSION = 1, MAX_BYTES = 64 * 2 ** 20, MAX_TEXT = 4000, STEP = 4;
  const PREFIX = "damcrack-decisions-", KEY = PREFIX + settings.survey;
  const findings = photos.flatMap((photo, number) => photo.findings.map((one, place) => Object.assign(new Finding(number, place), one)));
  const past = [];
  let unmatched = [], unsaved = false, listener = () => {};

  // Thumbnail, lines and blocks of a photo: of many photos few are looked at, so each is parsed when it is.
  function drawing(number) {
    if (drawings[number] instanceof Element) drawings[number] = JSON.parse(drawings[number].textContent);
    return drawings[number];
  }

  const evidence = (one) => Math.round(100 * one.prob);
  findings.sort((a, b) =>
    (a.kind === "block") - (b.kind === "block") || evidence(b) - evidence(a) || (b.length_px || 0) - (a.length_px || 0));

  function points(one) {
    if (one.points) return one.points;
    one.points = [];
    for (const line of one.lines) {
      line.forEach(([x, y], at) => {
        const [x1, y1] = line[at + 1] || [x, y];
        const steps = Math.max(1, Math.round(Math.hypot(x1 - x, y1 - y) / STEP));
        for (let step = 0; step < steps; step += 1) one.points.push([x + ((x1 - x) * step) / steps, y + ((y1 - y) * step) / steps]);
      });
    }
    return one.points;
  }

  function iou(a, b) {
    const shared = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
    const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
    return shared / Math.max(1, area(a) + area(b) - shared);
  }

  function overlap(a, b) {
    const near = settings.near;
    if (a.kind === b.kind && a.box.join() === b.box.join()) return 2;
    if (Math.max(a.box[0], b.box[0]) > Math.min(a.box[2], b.box[2]) + near) return 0;
    if (Math.max(a.box[1], b.box[1]) > Math.min(a.box[3], b.box[3]) + near) return 0;
    if (a.kind === "block" && b.kind === "block") return iou(a.box, b.box);
    const share = (along, inside) => (along.length ? along.filter(inside).length / along.length : 0);
    if (a.kind !== b.kind) {
      const [crack, { box }] = a.kind === "crack" ? [a, b] : [b, a];
      return share(points(crack), ([x, y]) => x >= box[0] && x < box[2] && y >= box[1] && y < box[3]);
    }
    const [short, long] = [points(a), points(b)].sort((one, other) => one.length - other.length);
    return share(short, ([x, y]) => long.some((place) => Math.hypot(place[0] - x, place[1] - y) <= near));
  }

  // Decisions of a file, on the findings that they fit; where both are there the later one counts. Returns how many are news.
  function adopt(list) {
    const known = new Map(photos.map((photo, number) => [photo.sha256, number]));
    const byPhoto = new Map();
    const places = list.map((decision) => ({ decision, kind: decision.kind, box: decision.box_px, lines: decision.lines_px }));
    for (const place of places) {
      const photo = known.get(place.decision.sha256);
      if (photo !== undefined) byPhoto.set(photo, [...(byPhoto.get(photo) || []), place]);
    }
    const used = new Set();
    let news = 0;
    for (const finding of findings) {
      let best = null, most = settings.same;
      for (const place of byPhoto.get(finding.photo) || []) {
        const share = overlap(finding, place);
        if (share >= settings.same) used.add(place);
        if (share > most || (share === most && (!best || place.decision.when > best.decision.when))) [best, most] = [place, share];
      }
      if (!best) continue;
      const moved = most < 2 && !(best.kind === finding.kind && iou(best.box, finding.box) >= settings.unmoved);
      const fitted = { ...best.decision, ...geometry(finding), carried: best.decision.carried || moved };
      if (!finding.decision || fitted.when > finding.decision.when) news += 1;
      if (!finding.decision || fitted.when >= finding.decision.when) finding.decision = fitted;
    }
    const left = places.filter((place) => !used.has(place)).map((place) => place.decision);
    const name = (one) => JSON.stringify([one.sha256, one.kind, one.box_px]);
    unmatched = [...new Map([...unmatched, ...left].map((one) => [name(one), one])).values()];
    return news;
  }

  function geometry(finding) {
    const photo = photos[finding.photo];
    return { photo: photo.name, sha256: photo.sha256, kind: finding.kind, box_px: finding.box, lines_px: finding.lines };
  }

  function change(finding, values) {
    past.push([finding, finding.decision]);
    const before = finding.decision || { status: "undecided", class: "crack", severity: "", note: "" };
    set(finding, { ...geometry(finding), ...before, ...geometry(finding), carried: false, ...values });
  }

  function set(finding, decision) {
    const blank = { status: "undecided", class: "crack", severity: "", note: "", carried: false };
    const stamp = { who: document.getElementById("who").value.trim(), when: new Date().toISOString() };
    finding.decision = { ...(decision || { ...geometry(finding), ...blank }), ...stamp };
    unsaved = true;
    remember();
    listener(finding);
  }

  function undo() {
    const last = past.pop();
    if (last) set(...last);
    return last && last[0];
  }

  const all = () => [...findings.filter((one) => one.decision).map((one) => one.decision), ...unmatched];
  const file = (space) => JSON.stringify({ format: FORMAT, version: VERSION, title: settings.title, decisions: all() }, null, space);

  function remember() {
    try {
      localStorage.setItem(KEY, JSON.stringify({ unsaved, file: file() }));
    } catch {
      say("This browser cannot store the decisions: save them before you close the page.");
    }
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${file(1)}\n`], { type: "application/json" }));
    link.download = "decisions.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    unsaved = false;
    remember();
    say("Saved in the folder of downloads: put it beside this page, under the name decisions.json.");
  }

  async function load(given) {
    if (given.size > MAX_BYTES) return say(`${given.name} is larger than 64 MB, more than any survey needs: choose decisions.json.`);
    const problem = take(await given.text());
    const lost = unmatched.length ? ` Decisions that fit no finding here: ${unmatched.length}; they are saved with the others.` : "";
    say(problem ? `${given.name} ${problem}` : `Loaded ${given.name}.${lost}`);
    listener(null);
    return remember();
  }

  function take(text) {
    let content;
    try {
      content = JSON.parse(text);
    } catch {
      return "is damaged: it is no whole JSON file. Save it again from the page.";
    }
    if (!content || content.format !== FORMAT || !Array.isArray(content.decisions)) return "is no file of decisions: choose the one that this page saved.";
    if (content.version !== VERSION) return `has version ${String(content.version).slice(0, 20)}, this page reads ${VERSION}: use the damcrack that wrote it.`;
    const wrong = content.decisions.findIndex((one) => !valid(one));
    if (wrong >= 0) return `cannot be read: decision ${wrong + 1} is not what a page saves.`;
    const names = new Set(photos.map((photo) => photo.sha256));
    if (content.decisions.length && !content.decisions.some((one) => names.has(one.sha256))) {
      return "decides on other photos: none of them is in this survey.";
    }
    adopt(content.decisions);
    return "";
  }

  function valid(one) {
    const pixels = (values, size) => Array.isArray(values) && values.length === size && values.every((v) => Number.isInteger(v) && Math.abs(v) <= 1e6);
    const text = (value) => typeof value === "string" && value.length <= MAX_TEXT;
    return Boolean(one) && ["photo", "sha256", "note", "who", "when"].every((name) => text(one[name])) &&
      ["crack", "block"].includes(one.kind) && ["accepted", "rejected", "undecided"].includes(one.status) &&
      settings.classes.includes(one.class) && settings.severities.includes(one.severity) && pixels(one.box_px, 4) &&
      Array.isArray(one.lines_px) && one.lines_px.every((line) => Array.isArray(line) && line.every((point) => pixels(point, 2)));
  }

  function say(text) {
    document.getElementById("message").textContent = text;
  }

  // A carried decision is somebody's word on a similar finding: it counts once it is confirmed.
  const status = (one) => (!one.decision || one.decision.carried ? "undecided" : one.decision.status);

  function begin(whenChanged) {
    listener = whenChanged;
    adopt(read("decided"));
    try {
      const known = JSON.parse(localStorage.getItem(KEY) || "null");
      if (known && !take(known.file)) unsaved = known.unsaved;
      Object.keys(localStorage).filter((key) => key.startsWith(PREFIX) && key !== KEY).forEach(adoptOther);
      if (unsaved) say("Decisions of an earlier visit are in this browser and in no file yet: save them.");
    } catch {
      say("This browser stores nothing for this page: save the decisions before you close it.");
    }
    window.addEventListener("storage", (event) => {
      if (event.key !== KEY || !event.newValue) return;
      const other = JSON.parse(event.newValue);  // of this page in another window
      take(other.file);
      unsaved = other.unsaved;
      listener(null);
    });
  }

  // A survey that has grown or lost a photo has another key: what was decided before, and is in no file, still counts.
  function adoptOther(key) {
    const other = JSON.parse(localStorage.getItem(key)), names = new Set(photos.map((photo) => photo.sha256));
    const here = other.unsaved ? JSON.parse(other.file).decisions.filter((one) => names.has(one.sha256) && valid(one)) : [];
    if (here.length && adopt(here)) unsaved = true;
  }

  return { settings, photos, findings, drawing, points, change, undo, save, load, status, begin };
})();
