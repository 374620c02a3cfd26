// What a frame without rights, as MLflow's of an artifact, would refuse.
(() => {
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      document.getElementById(link.hash.slice(1)).scrollIntoView();
    });
  }
  if (window.origin === "null" && window.parent !== window) {
    for (const link of document.querySelectorAll("a[target=_blank]")) link.replaceWith(...link.childNodes);
    for (const note of document.querySelectorAll(".framed")) note.hidden = false;
  }
})();
