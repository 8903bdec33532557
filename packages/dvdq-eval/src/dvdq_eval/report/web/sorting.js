"use strict";
// A click on a heading sorts a table by that column, another click the other way; what has no value stays last.
function sort(header, order) {
  const table = header.closest("table");
  const sign = order === "ascending" ? 1 : -1;
  const value = (row) => row.cells[header.cellIndex].dataset.value;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort(compare));
  for (const other of header.parentElement.cells) other.ariaSort = other === header ? order : "none";
}

for (const button of document.querySelectorAll("thead button")) {
  const opposite = { ascending: "descending", descending: "ascending" };
  button.addEventListener("click", () => {
    const header = button.closest("th");
    sort(header, opposite[header.ariaSort] ?? button.dataset.first);
  });
}
