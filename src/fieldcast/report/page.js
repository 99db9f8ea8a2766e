"use strict";

const FRAME_MILLISECONDS = 350;
const PAUSE_AT_END = 3;

function startPlayer(root) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const images = [...root.querySelectorAll(".frame img")];
  const slider = root.querySelector("input");
  const play = root.querySelector(".play");
  const time = root.querySelector("output");
  const numFrames = data.labels.length;
  let current = data.start;
  let timer = null;
  let waited = 0;

  function show(frame) {
    current = (frame + numFrames) % numFrames;
    slider.value = current;
    slider.setAttribute("aria-valuetext", data.labels[current]);
    time.textContent = data.labels[current];
    images.forEach((image, panel) => {
      const address = data.frames[panel][current];
      image.hidden = address === null;
      if (address !== null) image.src = address;
      image.alt = "Map of " + data.quantity + ": " + data.panels[panel] + ", " + data.labels[current];
    });
  }

  function advance() {
    if (current === numFrames - 1 && ++waited < PAUSE_AT_END) return;
    waited = 0;
    show(current + 1);
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶ Play";
    play.setAttribute("aria-label", "Play");
  }

  function toggle() {
    if (timer !== null) return pause();
    timer = setInterval(advance, FRAME_MILLISECONDS);
    play.textContent = "⏸ Pause";
    play.setAttribute("aria-label", "Pause");
  }

  function step(change) {
    pause();
    show(current + change);
  }

  play.addEventListener("click", toggle);
  root.querySelector(".back").addEventListener("click", () => step(-1));
  root.querySelector(".forward").addEventListener("click", () => step(1));
  slider.addEventListener("input", () => { pause(); show(Number(slider.value)); });
  show(current);
  return { root, toggle, step };
}

const players = [...document.querySelectorAll(".player")].map(startPlayer);

function playerInView() {
  const focused = players.find((player) => player.root.contains(document.activeElement));
  return focused || players.find((player) => {
    const box = player.root.getBoundingClientRect();
    return box.bottom > 0 && box.top < window.innerHeight;
  });
}

document.addEventListener("keydown", (event) => {
  const player = playerInView();
  const element = event.target.tagName;
  if (!player || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === " " && element !== "BUTTON" && element !== "SUMMARY") player.toggle();
  else if (event.key === "ArrowRight" && element !== "INPUT") player.step(1);
  else if (event.key === "ArrowLeft" && element !== "INPUT") player.step(-1);
  else return;
  event.preventDefault();
});
