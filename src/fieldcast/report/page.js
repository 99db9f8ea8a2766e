"use strict";

// A player takes its frames from the contact sheet of its case, so that the page holds each only once.
function startPlayer(root) {
  const sheet = root.closest(".case").querySelector(".sheet");
  const heads = [...sheet.querySelectorAll("thead th[data-label]")];
  const labels = heads.map((cell) => cell.dataset.label);
  const waits = heads.map((cell) => Number(cell.dataset.wait));
  const frames = [...sheet.querySelectorAll("tbody tr")].map((row) =>
    [...row.querySelectorAll("td")].map((cell) => cell.querySelector("img")));
  const images = [...root.querySelectorAll(".frame img")];
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
    images.forEach((image, panel) => {
      const shown = frames[panel][current];
      image.hidden = shown === null;
      if (shown === null) return;
      image.src = shown.src;
      image.alt = shown.alt;
    });
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

const players = [...document.querySelectorAll(".player")].map(startPlayer);

// Keys go to the player that has the focus, else to the one nearest to the middle of the window.
function playerForKeys() {
  const focused = players.find((player) => player.root.contains(document.activeElement));
  if (focused) return focused;
  const middle = window.innerHeight / 2;
  const distance = (player) => {
    const box = player.root.getBoundingClientRect();
    const seen = box.height > 0 && box.bottom > 0 && box.top < window.innerHeight;
    return seen ? Math.abs((box.top + box.bottom) / 2 - middle) : Infinity;
  };
  return players.filter((player) => distance(player) < Infinity).sort((a, b) => distance(a) - distance(b))[0];
}

document.addEventListener("keydown", (event) => {
  const player = playerForKeys();
  const element = event.target;
  if (!player || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  const pressed = ["BUTTON", "SUMMARY", "A"].includes(element.tagName);
  const scrolls = element.tagName === "INPUT" || element.classList.contains("wide");
  if (event.key === " " && !pressed) player.toggle();
  else if (event.key === "ArrowRight" && !scrolls) player.step(1);
  else if (event.key === "ArrowLeft" && !scrolls) player.step(-1);
  else if (event.key === "Home" && player.root.contains(element)) player.jump(0);
  else if (event.key === "End" && player.root.contains(element)) player.jump(-1);
  else return;
  event.preventDefault();
});

// On paper everything is unfolded.
let unfolded = [];
window.addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  unfolded.forEach((element) => { element.open = true; });
});
window.addEventListener("afterprint", () => {
  unfolded.forEach((element) => { element.open = false; });
});
