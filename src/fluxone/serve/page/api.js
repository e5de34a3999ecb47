// The page speaks the same API as every other client: post to an endpoint, then poll until the picture is there.

const POLL = 200;          // ms
export const key = { value: "" };
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export async function call(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (key.value) headers["x-key"] = key.value;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Is it running?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(body.message || answer.statusText), { status: answer.status });
  return body;
}

export const post = (endpoint, body) => call(`/v1/${endpoint}`, { method: "POST", body: JSON.stringify(body) });
export const result = (id) => call("/v1/get_result?id=" + encodeURIComponent(id));
export const cancel = (id) => call("/v1/cancel?id=" + encodeURIComponent(id), { method: "POST" }).catch(() => {});

// Poll until it is ready; `seen` is told of each unfinished state.
export async function follow(id, seen) {
  for (;;) {
    const task = await result(id);
    if (task.status === "Ready") return task;
    if (task.status !== "Pending") {
      const why = task.details && (task.details.error || (task.details["Moderation Reasons"] || []).join(", "));
      throw new Error(why ? `${task.status}: ${why}` : task.status);
    }
    seen(task);
    await sleep(POLL);
  }
}
