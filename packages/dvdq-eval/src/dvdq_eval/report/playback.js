"use strict";
// All videos play at once; the first one is the clock that the others are held to.
const videos = [...document.querySelectorAll("video")];
const clock = videos[0];
const fps = Number(clock.dataset.fps);
const [play, back, forward, scrub, speed, output] = ["play", "back", "forward", "scrub", "speed", "frame"].map((id) =>
  document.getElementById(id));
let frames = 1;
let playing = false;

function announce() {
  const frame = Math.min(frames - 1, Math.floor(clock.currentTime * fps));
  scrub.value = frame;
  output.textContent = `${frame + 1} of ${frames}`;
  return frame;
}

function seek(time) {
  for (const video of videos) video.currentTime = time;
}

function start() {
  for (const video of videos) {
    video.playbackRate = Number(speed.value);
    video.play().catch(() => setPlaying(false));
  }
}

function tick() {
  if (!playing) return;
  if (clock.ended) {
    seek(0);
    start();
  }
  for (const video of videos) {
    if (Math.abs(video.currentTime - clock.currentTime) > 1 / fps && !video.seeking) video.currentTime = clock.currentTime;
  }
  announce();
  requestAnimationFrame(tick);
}

function setPlaying(on) {
  if (playing === on) return;
  playing = on;
  play.textContent = on ? "Pause" : "Play";
  if (on) {
    start();
    requestAnimationFrame(tick);
  } else {
    for (const video of videos) video.pause();
  }
}

function show(frame) {
  setPlaying(false);
  // The middle of a frame's time: its beginning may be rounded to the frame before.
  seek(((((frame % frames) + frames) % frames) + 0.5) / fps);
}

function ready() {
  frames = Math.max(1, Math.round(clock.duration * fps));
  scrub.max = frames - 1;
  show(Math.floor(frames / 2));
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) setPlaying(true);
}

play.addEventListener("click", () => setPlaying(!playing));
back.addEventListener("click", () => show(announce() - 1));
forward.addEventListener("click", () => show(announce() + 1));
scrub.addEventListener("input", () => show(Number(scrub.value)));
speed.addEventListener("change", () => playing && start());
clock.addEventListener("seeked", announce);
if (clock.readyState >= 1) ready();
else clock.addEventListener("loadedmetadata", ready, { once: true });
