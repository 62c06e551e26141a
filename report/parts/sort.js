"use strict";
// Tables are whole without this: it only makes their headings sort them.
for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((heading, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const isRising = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", isRising ? "ascending" : "descending");
      const text = (row) => row.cells[place].textContent;
      const compare = (one, other) => {
        const [a, b] = [text(one), text(other)];
        if (a === "" || b === "") return (a === "") - (b === "");
        const difference = Number(a) - Number(b);
        const order = Number.isNaN(difference) ? a.localeCompare(b) : difference;
        return isRising ? order : -order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
