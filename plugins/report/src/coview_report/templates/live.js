setInterval(async () => {
  try {
    const answer = await fetch("stamp", { cache: "no-store" });
    if (answer.ok && (await answer.json()) !== live) location.reload();
  } catch {
    // The server has ended, or the machine sleeps: what is shown stays.
  }
}, 4000);
