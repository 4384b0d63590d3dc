// Live progress: when the server says that something happened, the part of the page that tells it is fetched again.
"use strict";
(() => {
  const place = document.querySelector("[data-live]");
  if (!place) return;
  const source = new EventSource(place.dataset.live);
  source.addEventListener("changed", async () => {
    const reply = await fetch(place.dataset.part, { credentials: "same-origin" });
    if (!reply.ok) return;
    // What somebody had opened to read stays open: news come at the end.
    const open = [...place.querySelectorAll("details")].map((part) => part.open);
    place.innerHTML = await reply.text();
    place.querySelectorAll("details").forEach((part, index) => {
      if (index < open.length) part.open = open[index];
    });
  });
  source.addEventListener("ended", () => {
    source.close();
    location.reload();
  });
})();
