// Live progress: when the server says that something happened, the part of the page that tells it is fetched again.
"use strict";
(() => {
  const place = document.querySelector("[data-live]");
  if (!place) return;
  const source = new EventSource(place.dataset.live);
  source.addEventListener("changed", async () => {
    const reply = await fetch(place.dataset.part, { credentials: "same-origin" });
    if (reply.ok) place.innerHTML = await reply.text();
  });
  source.addEventListener("ended", () => {
    source.close();
    location.reload();
  });
})();
