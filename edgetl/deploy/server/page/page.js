"use strict";

// One picture at a time goes to the server: the next frame of a camera is taken when the last answer is there.
const byId = (id) => document.getElementById(id);
const shown = byId("shown"), video = byId("video"), stage = byId("stage");
const COLOURS = ["#2fd07f", "#ffd21f", "#ff6a5e", "#5bb8ff", "#e58bff", "#ffa94d", "#7df0e6", "#ff9cc4"];
const TOP = 5, KEPT = 20, SHORTEST = 640, LONGEST = 1280, MAP_STRENGTH = 0.65;
let models = [], token = "", stream = null, picture = null, asking = false, waiting = false;
const times = [];

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : NaN;
}

function problem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

function model() {
  return models.find((one) => one.name === byId("model").value);
}

async function ask(path, options = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.status === 401) {
    byId("token-field").hidden = false;
    byId("token").focus();
  }
  const value = await response.json().catch(() => ({ error: `The server answered with ${response.status}.` }));
  if (!response.ok) throw Object.assign(new Error(value.error), { status: response.status });
  return [value, response];
}

async function loadModels() {
  try {
    [{ models }] = await ask("v1/models");
  } catch (error) {
    problem(error.message);
    return;
  }
  problem("");
  byId("token-field").hidden = true;
  const before = byId("model").value;
  byId("model").replaceChildren(...models.map((one) => new Option(`${one.name} (${one.task})`, one.name)));
  if (models.some((one) => one.name === before)) byId("model").value = before;
  chosen();
}

function chosen() {
  const one = model();
  if (!one) return;
  byId("where-field").hidden = !one.explains;
  const count = `${one.labels.length} ${one.labels.length === 1 ? "class" : "classes"}`;
  byId("about").textContent =
    `${one.name}: ${count}, ${one.variant} on ${one.target}, version ${one.version}. ` +
    "Pictures go to this server alone and are not kept.";
  times.length = 0;
  if (picture && !stream) show(picture);
}

// --- asking ---------------------------------------------------------------------------------------

async function answerTo(blob) {
  const one = model();
  if (!one) throw new Error("There is no model to ask yet.");
  const explain = one.explains && byId("where").checked ? "&explain=1" : "";
  const began = performance.now();
  const [answer, response] = await ask(
    `v1/models/${encodeURIComponent(one.name)}:predict?top=${TOP}${explain}`, { method: "POST", body: blob });
  const inside = /dur=([\d.]+)/.exec(response.headers.get("server-timing") || "");
  times.push({ round: performance.now() - began, inside: inside ? Number(inside[1]) : NaN, at: performance.now() });
  if (times.length > KEPT) times.shift();
  return answer;
}

function showTimes() {
  const milliseconds = (value) => (Number.isFinite(value) ? `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms` : "-");
  byId("round").textContent = milliseconds(median(times.map((one) => one.round)));
  byId("inside").textContent = milliseconds(median(times.map((one) => one.inside)));
  const span = times.length > 1 ? times[times.length - 1].at - times[0].at : 0;
  byId("rate").textContent = stream && span ? `${((1000 * (times.length - 1)) / span).toFixed(1)}` : "-";
}

// --- showing --------------------------------------------------------------------------------------

function draw(source, width, height) {
  shown.width = width;
  shown.height = height;
  const canvas = shown.getContext("2d");
  canvas.drawImage(source, 0, 0, width, height);
  return canvas;
}

function drawBoxes(canvas, found) {
  const scale = shown.width / found.width, ratio = shown.width / (shown.clientWidth || shown.width);
  const line = 2 * ratio, size = 13 * ratio; // As wide and high on every screen.
  canvas.font = `600 ${size}px system-ui, sans-serif`;
  canvas.textBaseline = "top";
  for (const item of [...found.items].reverse()) {
    const [x1, y1, x2, y2] = item.box.map((value) => value * scale);
    const colour = COLOURS[item.index % COLOURS.length];
    canvas.lineWidth = line + 2;
    canvas.strokeStyle = "rgba(0,0,0,.6)";
    canvas.strokeRect(x1, y1, x2 - x1, y2 - y1);
    canvas.lineWidth = line;
    canvas.strokeStyle = colour;
    canvas.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = `${item.label} ${(100 * item.score).toFixed(0)}%`;
    const wide = canvas.measureText(text).width + 8, top = Math.max(0, y1 - size - 6);
    const left = Math.max(0, Math.min(x1, shown.width - wide));
    canvas.fillStyle = colour;
    canvas.fillRect(left, top, wide, size + 6);
    canvas.fillStyle = "#10141a";
    canvas.fillText(text, left + 4, top + 3);
  }
}

function drawMap(canvas, map) {
  const rows = map.strength.length, columns = map.strength[0].length;
  const small = new OffscreenCanvas(columns, rows), inner = small.getContext("2d");
  const pixels = inner.createImageData(columns, rows);
  map.strength.flat().forEach((value, at) => {
    const share = value / 255;
    pixels.data.set([255, Math.round(60 + 180 * share), Math.round(60 * (1 - share)), Math.round(255 * MAP_STRENGTH * share)], 4 * at);
  });
  inner.putImageData(pixels, 0, 0);
  canvas.imageSmoothingQuality = "high";
  canvas.drawImage(small, 0, 0, shown.width, shown.height);
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function row(label, score, colour) {
  const line = element("li"), name = element("span", "name"), bar = element("span", "bar"), fill = element("span");
  if (colour) {
    const swatch = element("span", "swatch");
    swatch.style.setProperty("--c", colour);
    name.append(swatch);
  }
  name.append(label);
  fill.style.width = `${100 * score}%`;
  bar.setAttribute("aria-hidden", "true");
  bar.append(fill);
  line.append(name, element("span", "score", `${(100 * score).toFixed(1)}%`), bar);
  return line;
}

function list(title, rows) {
  const part = document.createDocumentFragment(), items = element("ul");
  if (title) part.append(element("h3", "", title));
  items.append(...rows);
  part.append(items);
  return part;
}

function labelsOf(answer) {
  const found = answer.prediction;
  const ranked = (one) => one.top.map((candidate) => row(candidate.label, candidate.score));
  switch (answer.task) {
    case "detection":
      return [list("", found.items.map((item) => row(item.label, item.score, COLOURS[item.index % COLOURS.length])))];
    case "multihead":
      return Object.entries(found.heads).map(([name, one]) => list(name, ranked(one)));
    default:
      return [list("", ranked(found))];
  }
}

function showAnswer(canvas, answer) {
  if (answer.task === "detection") drawBoxes(canvas, answer.prediction);
  for (const map of answer.maps || []) drawMap(canvas, map);
  byId("text").textContent = answer.text;
  shown.setAttribute("aria-label", `The picture; the answer is: ${answer.text}`);
  byId("labels").replaceChildren(...labelsOf(answer));
  showTimes();
}

// --- pictures -------------------------------------------------------------------------------------

async function show(blob) {
  picture = blob;
  waiting = asking; // What came last is shown next.
  if (asking) return;
  asking = true;
  problem("");
  try {
    // As the server turns it: upright, by its EXIF orientation.
    const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" }).catch(() => null);
    const answer = await answerTo(blob);
    stage.classList.remove("empty");
    byId("hint").hidden = true;
    let canvas;
    if (bitmap) {
      const side = Math.max(bitmap.width, bitmap.height);
      const scale = Math.min(Math.max(1, SHORTEST / side), LONGEST / side);
      canvas = draw(bitmap, Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
      bitmap.close();
    } else {
      shown.width = 320;
      shown.height = 60;
      canvas = shown.getContext("2d");
    }
    showAnswer(canvas, answer);
  } catch (error) {
    problem(error.message);
  } finally {
    asking = false;
  }
  if (waiting && !stream) show(picture);
}

async function frames() {
  const taken = document.createElement("canvas");
  while (stream) {
    if (!video.videoWidth || document.hidden) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      continue;
    }
    const scale = Math.min(1, LONGEST / Math.max(video.videoWidth, video.videoHeight));
    taken.width = Math.round(video.videoWidth * scale);
    taken.height = Math.round(video.videoHeight * scale);
    taken.getContext("2d").drawImage(video, 0, 0, taken.width, taken.height);
    const blob = await new Promise((resolve) => taken.toBlob(resolve, "image/jpeg", 0.9));
    try {
      const answer = await answerTo(blob);
      if (!stream) break;
      problem("");
      stage.classList.remove("empty");
      byId("hint").hidden = true;
      showAnswer(draw(taken, taken.width, taken.height), answer);
    } catch (error) {
      problem(error.message);
      if (error.status === 401) return stopCamera();
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
}

async function startCamera() {
  if (!navigator.mediaDevices) {
    problem("Browsers give cameras to pages from this machine or over HTTPS alone: start the server with a certificate.");
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch (error) {
    problem(`The camera cannot be used: ${error.message}.`);
    return;
  }
  for (const track of stream.getTracks()) track.addEventListener("ended", stopCamera);
  byId("camera").textContent = "Stop the camera";
  byId("text").setAttribute("aria-live", "off"); // Else every frame would be read out.
  video.hidden = false;
  video.srcObject = stream;
  await video.play();
  times.length = 0;
  frames();
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  video.srcObject = null;
  video.hidden = true;
  byId("camera").textContent = "Start the camera";
  byId("text").setAttribute("aria-live", "polite");
}

// --- what people do -------------------------------------------------------------------------------

byId("asked").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  loadModels();
});
byId("model").addEventListener("change", chosen);
byId("where").addEventListener("change", () => picture && !stream && show(picture));
byId("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
byId("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) {
    stopCamera();
    show(file);
  }
  event.target.value = "";
});
stage.addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
stage.addEventListener("dragleave", () => stage.classList.remove("over"));
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) {
    stopCamera();
    show(file);
  }
});
loadModels();
