"use strict";
// Two methods of one prompt over one another, the right one visible to the right of a divider.
for (const player of players) {
  const compare = player.element.querySelector(".compare");
  if (!compare) continue;
  const rows = [...player.element.querySelectorAll(".clips")];
  const stage = compare.querySelector(".stage");
  const divider = stage.querySelector("input");
  const prompt = compare.querySelector(".of");
  const sides = [compare.querySelector(".left"), compare.querySelector(".right")];
  const shown = stage.querySelectorAll("video");
  const tags = stage.querySelectorAll(".tag");

  const choose = () => sides.forEach((side, i) => {
    const video = rows[prompt.selectedIndex].children[side.selectedIndex].querySelector("video");
    tags[i].textContent = side.value + (video ? "" : " (no video)");
    shown[i].hidden = !video;
    if (video) player.replace(shown[i], video.src);
    place();
  });
  const place = () => {
    stage.style.setProperty("--at", `${divider.value}%`);
    divider.setAttribute("aria-valuetext", `${divider.value} % ${sides[0].value}, the rest ${sides[1].value}`);
  };

  for (const select of [prompt, ...sides]) select.addEventListener("change", choose);
  divider.addEventListener("input", place);
  compare.hidden = false;
  choose();
}
