"use strict";
// The videos of a player run in step: the first is the clock that the others are held to.
class Player {
  constructor(element) {
    this.element = element;
    this.videos = [...element.querySelectorAll("video")];
    this.clock = element.querySelector(".clips video");
    this.fps = Number(element.dataset.fps);
    this.frames = 1;
    this.playing = false;
    this.visible = true;
    const [play, back, forward, scrub, speed, output] =
      [".play", ".back", ".forward", ".scrub input", ".speed", "output"].map((name) => element.querySelector(name));
    Object.assign(this, { play, scrub, speed, output });
    for (const video of this.videos) video.controls = false;
    element.querySelector(".controls").hidden = false;
    play.addEventListener("click", () => this.setPlaying(!this.playing));
    back.addEventListener("click", () => this.show(this.frame - 1));
    forward.addEventListener("click", () => this.show(this.frame + 1));
    scrub.addEventListener("input", () => this.show(Number(scrub.value)));
    speed.addEventListener("change", () => this.update());
    this.clock.addEventListener("seeked", () => this.announce());
    if (this.clock.readyState >= 1) this.ready();
    else this.clock.addEventListener("loadedmetadata", () => this.ready(), { once: true });
    // What nobody sees does not play.
    new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      this.update();
    }).observe(element);
  }

  ready() {
    this.frames = Math.max(1, Math.round(this.clock.duration * this.fps));
    this.scrub.max = this.frames - 1;
    this.show(Math.floor(this.frames / 2));
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.setPlaying(true);
  }

  get frame() {
    return Math.min(this.frames - 1, Math.floor(this.clock.currentTime * this.fps));
  }

  announce() {
    this.scrub.value = this.frame;
    this.output.textContent = `${this.frame + 1} of ${this.frames}`;
  }

  seek(time) {
    for (const video of this.videos) video.currentTime = time;
  }

  show(frame) {
    this.setPlaying(false);
    // The middle of a frame's time: its beginning may be rounded to the frame before.
    this.seek((((frame % this.frames) + this.frames) % this.frames + 0.5) / this.fps);
  }

  setPlaying(on) {
    this.playing = on;
    this.play.textContent = on ? "Pause" : "Play";
    this.update();
  }

  update() {
    if (!this.playing || !this.visible) {
      for (const video of this.videos) video.pause();
      return;
    }
    for (const video of this.videos) this.run(video);
    if (!this.ticking) this.tick();
  }

  run(video) {
    if (!video.src) return;
    video.playbackRate = Number(this.speed.value);
    video.play().catch((error) => error.name === "NotAllowedError" && this.setPlaying(false));
  }

  tick() {
    this.ticking = this.playing && this.visible;
    if (!this.ticking) return;
    if (this.clock.ended) {
      this.seek(0);
      this.update();
    }
    for (const video of this.videos) {
      const late = Math.abs(video.currentTime - this.clock.currentTime) > 1 / this.fps;
      if (late && !video.seeking) video.currentTime = this.clock.currentTime;
    }
    this.announce();
    requestAnimationFrame(() => this.tick());
  }

  // Another video in an element of this player.
  replace(video, source) {
    if (video.src === source) return;
    video.src = source;
    video.addEventListener("loadedmetadata", () => {
      video.currentTime = this.clock.currentTime;
      if (this.playing && this.visible) this.run(video);
    }, { once: true });
  }
}

const players = [...document.querySelectorAll(".player")].map((element) => new Player(element));
