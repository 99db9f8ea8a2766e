"use strict";

// What a player shows: labels and waits of its frames, and how one is painted.
// The frames of a case come from its contact sheet, so that the page holds each only once.
function sheetFrames(root) {
  const sheet = root.closest(".case").querySelector(".sheet");
  const heads = [...sheet.querySelectorAll("thead th[data-label]")];
  const labels = heads.map((cell) => cell.dataset.label);
  const waits = heads.map((cell) => Number(cell.dataset.wait));
  const frames = [...sheet.querySelectorAll("tbody tr")].map((row) =>
    [...row.querySelectorAll("td")].map((cell) => cell.querySelector("img")));
  const images = [...root.querySelectorAll(".frame img")];
  const paint = (current) => images.forEach((image, panel) => {
    const shown = frames[panel][current];
    image.hidden = shown === null;
    if (shown === null) return;
    image.src = shown.src;
    image.alt = shown.alt;
  });
  return { labels, waits, paint };
}

function startPlayer(root, { labels, waits, paint }) {
  const slider = root.querySelector("input");
  const play = root.querySelector(".play");
  const time = root.querySelector("output");
  let current = Number(root.dataset.start);
  let timer = null;

  function show(frame) {
    current = (frame + labels.length) % labels.length;
    slider.value = current;
    slider.setAttribute("aria-valuetext", labels[current]);
    time.textContent = labels[current];
    paint(current);
  }

  // Each frame stays for as long as its time lasts.
  function wait() {
    timer = setTimeout(() => { show(current + 1); wait(); }, waits[current]);
  }

  function showState(playing) {
    play.textContent = playing ? "⏸ Pause" : "▶ Play";
    play.setAttribute("aria-label", playing ? "Pause" : "Play");
    // A screen reader would read every frame of a running animation.
    time.setAttribute("aria-live", playing ? "off" : "polite");
  }

  function pause() {
    clearTimeout(timer);
    timer = null;
    showState(false);
  }

  function toggle() {
    if (timer !== null) return pause();
    wait();
    showState(true);
  }

  function step(change) {
    pause();
    show(current + change);
  }

  function jump(frame) {
    pause();
    show(frame);
  }

  play.addEventListener("click", toggle);
  root.querySelector(".back").addEventListener("click", () => step(-1));
  root.querySelector(".forward").addEventListener("click", () => step(1));
  slider.addEventListener("input", () => jump(Number(slider.value)));
  show(current);
  root.hidden = false;
  return { root, toggle, step, jump };
}

