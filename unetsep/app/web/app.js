"use strict";
// The page: uploads songs, shows the progress of each, offers their stems.

const $ = (id) => document.getElementById(id);
const KEY = "unetsep-jobs"; // ids of this browser's jobs: the server lists them to nobody
const PERIOD = 1000; // ms between polls
const PLAYER = "player"; // state of the browser's history while the player is open
const SLICE = 100; // jobs per request
const GONE = "It was removed, or the app was restarted. Add the song again.";
const RESTARTED = "The app was restarted with other models. Choose one above, then try again.";
const PART_WORDS = { vocals: "Vocals", drums: "Drums", bass: "Bass", other: "Other instruments" };

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A stem's name in plain words; no_vocals is everything but the vocals. */
function partWords(stem) {
  const rest = /^no_(.+)/.exec(stem);
  if (rest) return rest[1] === "vocals" ? "Music without vocals" : `Everything but ${rest[1]}`;
  return PART_WORDS[stem] ?? stem.charAt(0).toUpperCase() + stem.slice(1);
}

function timeWords(seconds) {
  if (seconds < 10) return "a few seconds left";
  if (seconds < 55) return `about ${10 * Math.round(seconds / 10)} seconds left`;
  return `about ${spanWords(seconds)} left`;
}

function spanWords(seconds) {
  const hours = Math.round(seconds / 1800) / 2;
  if (seconds >= 3600) return hours === 1 ? "an hour" : `${hours} hours`;
  const minutes = Math.max(1, Math.round(seconds / 60));
  return minutes === 1 ? "a minute" : `${minutes} minutes`;
}

/** A name inside a sentence, isolated so that the other words keep their direction. */
function inSentence(name) {
  const rightToLeft =
    /[\p{Bidi_Control}\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}]/u;
  return rightToLeft.test(name) ? `\u2068${name}\u2069` : name;
}

const countSongs = (count) => (count === 1 ? "1 song" : `${count} songs`);
const songWords = (count) => `${countSongs(count)} ${count === 1 ? "was" : "were"}`;
const sizeWords = (bytes) => `${Number((bytes / 1e6).toPrecision(6))} MB`; // as the app says it
const percent = (share) => `${Math.floor(100 * share)} %`;

/** A text as a sentence; the name of a song that begins it stays as it is. */
function sentence(text, name = null) {
  const capital = name && text.startsWith(name) ? text.charAt(0) : text.charAt(0).toUpperCase();
  return capital + text.slice(1).replace(/\.?$/, ".");
}

/** The error of an answer of the app: a sentence, and the HTTP status. */
const failure = (text, status) => Object.assign(new Error(sentence(text)), { status });

/** Send a request and return its JSON; errors are sentences. */
async function ask(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Error("The app does not answer. Is it still running?");
  }
  const content = response.status === 204 ? null : await response.json().catch(() => ({}));
  if (!response.ok)
    throw failure(content?.error ?? `The app answered ${response.status}`, response.status);
  return content;
}

/** Whether an error says nothing of the song: a lost connection, or trouble of the app. */
const mayPass = ({ status }) => !status || status === 408 || status >= 500;

/** Sends a form; fetch would not report the progress. */
class Sender {
  constructor() {
    this.request = new XMLHttpRequest();
    // We choose the job's id, so we can remove the job even before we have read the response.
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    this.id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  send(form, progress) {
    return new Promise((resolve, reject) => {
      const { request } = this;
      request.open("POST", `separate?id=${this.id}`);
      request.responseType = "json";
      request.upload.onprogress = ({ loaded, total }) => progress(total ? loaded / total : 0);
      request.onload = () => {
        if (request.status === 202) return resolve(request.response);
        return reject(failure(request.response?.error ?? "The upload failed", request.status));
      };
      request.onerror = () => reject(new Error("The upload was interrupted."));
      request.onabort = () => reject(new Error("Cancelled."));
      request.send(form);
    });
  }

  abort() {
    this.request.abort();
  }
}

/** One song in the list: first a file to upload, then a job. */
class SongRow {
  constructor(page, name) {
    this.page = page;
    this.job = null;
    this.title = make("h3");
    this.status = make("p", { class: "state" });
    this.bar = make("progress", { max: 1, value: 0 });
    this.actions = make("div", { class: "actions" });
    this.element = make("li", { class: "song" });
    this.enqueue();
    this.rename(name);
  }

  /** Show a song that is still to be uploaded. */
  enqueue() {
    this.state = "waiting";
    this.element.classList.remove("failed");
    this.element.replaceChildren(this.title, this.actions, this.status, this.bar);
    this.actions.replaceChildren();
    this.say("Waiting for upload", 0);
    return this.addAction("Cancel", () => this.remove());
  }

  get name() {
    return this.title.textContent;
  }

  /** Show a name; the app may remove characters from that of the file. */
  rename(name) {
    this.title.textContent = name;
    this.bar.setAttribute("aria-label", `Progress of ${name}`);
    for (const button of this.actions.children)
      button.setAttribute("aria-label", `${button.textContent}: ${name}`);
  }

  addAction(text, action, kind = null) {
    const button = make("button", { type: "button", text, class: kind });
    button.setAttribute("aria-label", `${text}: ${this.name}`);
    button.addEventListener("click", action);
    this.actions.append(button);
    return button;
  }

  addLink(text, url, kind) {
    const link = make("a", { text, href: url.slice(1), download: "", class: kind });
    link.setAttribute("aria-label", `${text}: ${this.name}`);
    link.addEventListener("click", async (event) => {
      if (!event.isTrusted) return; // by link.click() below
      event.preventDefault();
      if (await this.page.check(this, link.href)) link.click();
    });
    return link;
  }

  say(text, share) {
    this.status.textContent = text;
    if (share === null) this.bar.removeAttribute("value");
    else this.bar.value = share;
  }

  /** Show why the song failed, and a button to try again if that may help. */
  fail(text, again = null) {
    const hadFocus = this.element.contains(document.activeElement);
    this.state = "failed";
    this.element.classList.remove("done");
    this.element.classList.add("failed");
    this.element.replaceChildren(this.title, this.actions, this.status);
    this.status.textContent = text;
    this.actions.replaceChildren();
    if (again) this.addAction("Try again", again, "first");
    this.addAction("Remove", () => this.remove());
    if (hadFocus) this.actions.querySelector("button").focus();
    this.page.showQueue();
    this.announceOutcome(text.startsWith(this.name) ? text : `${inSentence(this.name)}: ${text}`);
  }

  /** Announce the outcome of the song. */
  announceOutcome(text) {
    this.outcome = text;
    this.page.announce(text);
  }

  /** Show the job's state from the server. */
  show(job) {
    this.job = job;
    if (this.state === "failed" || this.state === "done") return;
    this.rename(job.name);
    this.state = job.state;
    if (job.state === "failed") this.fail(sentence(job.error, job.name));
    else if (job.state === "done") this.finish(job);
    else if (job.state === "queued") this.say(this.waitWords(job.before), 0);
    else this.say(this.runWords(job), job.progress);
    this.page.showQueue();
  }

  waitWords(before) {
    if (!before) return "Starting";
    return before === 1 ? "Waiting: one song is ahead" : `Waiting: ${before} songs are ahead`;
  }

  runWords(job) {
    const stage = job.stage === "preparing" ? "Preparing the player" : "Taking it apart";
    if (job.progress === null) return stage;
    const time = job.seconds_left === null ? "" : `, ${timeWords(job.seconds_left)}`;
    return `${stage}: ${percent(job.progress)}${time}`;
  }

  finish(job) {
    this.bar.remove();
    this.element.classList.add("done");
    this.status.textContent = "Ready";
    const hadFocus = this.element.contains(document.activeElement);
    this.actions.replaceChildren();
    if (job.player) this.addAction("Listen", () => this.page.listen(this), "first");
    this.actions.append(this.addLink("Download all", job.zip, "button"));
    this.addAction("Remove", () => this.remove());
    const parts = make("div", { class: "parts" }, make("span", { text: "Or one by one:" }));
    for (const [stem, url] of Object.entries(job.stems))
      parts.append(this.addLink(partWords(stem), url, null));
    this.element.append(parts);
    const notes = job.warnings.map((text) => sentence(text, job.name));
    if (job.gain_db)
      notes.push(
        `All parts are ${(-job.gain_db).toFixed(1)} dB softer than in the song, so that none distorts.`,
      );
    for (const text of notes) this.element.append(make("p", { class: "notes", text }));
    if (hadFocus) this.actions.querySelector("button").focus();
    this.announceOutcome(`${inSentence(job.name)} is ready.`);
  }

  async remove() {
    const { state } = this;
    const id = this.job?.id ?? this.sender?.id;
    this.state = "removed";
    this.sender?.abort();
    this.page.drop(this);
    const finished = state === "done" || state === "failed";
    this.page.announce(`${inSentence(this.name)} was ${finished ? "removed" : "cancelled"}.`);
    try {
      if (id) await this.forget(id);
    } catch (error) {
      this.page.announce(error.message);
      if (this.job) this.page.restore([id]);
    }
  }

  /** Remove a job from the server, unless it is gone. */
  async forget(id) {
    try {
      await ask(`jobs/${id}`, { method: "DELETE" });
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }
}

class App {
  constructor() {
    this.rows = [];
    this.toSend = [];
    this.sending = false;
    this.polling = null;
    this.trouble = "";
    this.bind();
  }

  async start() {
    try {
      await this.loadChoices();
    } catch (error) {
      this.complain(error.message);
      setTimeout(() => this.start(), PERIOD);
      return;
    }
    this.complain("");
    this.restore();
  }

  /** Load what can be chosen; the lists change only if that has changed. */
  async loadChoices() {
    const choices = await ask("choices");
    if (JSON.stringify(choices) === JSON.stringify(this.choices)) return;
    this.choices = choices;
    const { qualities, formats, limits } = this.choices;
    this.fill("quality", qualities);
    this.fill("format", formats);
    this.fillParts();
    $("limits").textContent = `Songs or videos, up to ${sizeWords(limits.upload_bytes)} each`;
    const keep = spanWords(limits.keep_seconds);
    $("keep").textContent =
      `Songs are removed ${keep} after you last used them, earlier if space is short, and when the app ends.`;
  }

  /** Whether the app has lost a model, in a restart; the lists then show its present ones. */
  async hasLost(model) {
    try {
      await this.loadChoices();
    } catch {
      return false;
    }
    return !this.choices.models.some(({ name }) => name === model);
  }

  /** Fill a list of choices; the description of the selected one is shown below it. */
  fill(id, choices) {
    const select = $(id);
    const words = $(`${id}-words`);
    select.replaceChildren(
      ...choices.map(({ name, title }) => make("option", { value: name ?? title, text: title })),
    );
    const say = () => {
      words.textContent = choices[select.selectedIndex].description;
    };
    select.onfocus = () => words.setAttribute("aria-live", "polite"); // silent as the page loads
    select.onchange = say;
    say();
  }

  get quality() {
    return this.choices.qualities[$("quality").selectedIndex];
  }

  /** Fill the list of parts for a model: all of them, or one part and the rest. */
  fillParts() {
    const { stems } = this.choices.models.find(({ name }) => name === this.quality.model);
    const previous = $("parts").value;
    const parts = [];
    if (stems.length > 1)
      parts.push({
        name: "",
        title: `All ${stems.length} parts`,
        description: sentence(stems.map(partWords).join(", ").toLowerCase()),
      });
    for (const stem of stems)
      parts.push({
        name: stem,
        title: `${partWords(stem)} and the rest`,
        description:
          stem === "vocals"
            ? "Two files: the voices, and the music for karaoke."
            : `Two files: ${partWords(stem).toLowerCase()}, and everything else to play along with.`,
      });
    this.fill("parts", parts);
    if (parts.some(({ name }) => name === previous)) {
      $("parts").value = previous;
      $("parts").onchange();
    }
  }

  bind() {
    $("choices").addEventListener("submit", (event) => event.preventDefault());
    $("quality").addEventListener("change", () => this.fillParts());
    $("files").addEventListener("change", () => {
      this.add($("files").files);
      $("files").value = "";
    });
    for (const kind of ["dragover", "dragleave", "drop"])
      document.addEventListener(kind, (event) => {
        event.preventDefault(); // a browser would open the file
        $("drop").classList.toggle("over", kind === "dragover");
        if (kind !== "drop") return;
        // Only the entry tells a folder from a file: a folder may have a size.
        const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
        const entries = items.map((item) => item.webkitGetAsEntry());
        this.add(event.dataTransfer.files, entries);
      });
    $("close").addEventListener("click", () => $("player").close());
    $("player").addEventListener("close", () => {
      // The mix stays for the next time, unless the song is gone or the player has failed.
      if (this.listened?.job && this.engine?.failure === null) {
        this.engine.pause();
        this.engine.context?.suspend(); // an idle one keeps phones awake
      } else this.showPlayer("about:blank");
      this.listened?.element.querySelector("button").focus();
      if (history.state === PLAYER) history.back();
    });
    // Opening the player adds a step to the history, so that the Back button closes it.
    if (history.state === PLAYER) history.back(); // the page was reloaded with an open player
    window.addEventListener("popstate", () => {
      if (history.state !== PLAYER) $("player").close();
      else if (!$("player").open) history.replaceState(null, ""); // Forward, to a closed player
    });
    // Keys pressed in the player's frame do not reach this page. Each song has another frame,
    // whose load event does not bubble.
    const prepare = () => {
      const inner = $("frame").contentDocument; // null where the browser shows an error
      // Chromium restores the player in its frame on a step of the history.
      if (!$("player").open && inner?.URL !== "about:blank") return this.showPlayer("about:blank");
      inner?.addEventListener("keydown", (event) => {
        if (event.key === "Escape") $("player").close();
      });
      if ($("player").open) $("frame").contentWindow.focus();
    };
    $("player").addEventListener("load", prepare, true);
    // Another tab has removed a song; its request may still be on the way.
    window.addEventListener("storage", ({ key, newValue }) => {
      if (key !== KEY) return;
      const ids = JSON.parse(newValue ?? "[]");
      const rows = this.rows.filter(({ job }) => job && !ids.includes(job.id));
      setTimeout(() => rows.forEach((row) => row.job && this.check(row)), PERIOD);
    });
    window.addEventListener("beforeunload", (event) => {
      if (this.sending) event.preventDefault();
    });
  }

  announce(text) {
    $("message").textContent = text;
  }

  // Songs

  /** What is chosen, as fields of a form. */
  get fields() {
    return {
      model: this.quality.model,
      passes: this.quality.passes,
      two_stems: $("parts").value,
      format: $("format").value,
      player: "true",
    };
  }

  /** Upload files; dropped ones come with their entries. */
  add(files, entries = []) {
    if (!this.choices || !files.length) return;
    const { fields } = this;
    const refused = [];
    for (const [index, file] of [...files].entries()) {
      const row = this.addRow(file.name);
      const most = this.choices.limits.upload_bytes;
      let problem = null;
      if (entries[index]?.isDirectory) problem = "A folder: drop the songs that are in it.";
      else if (file.size > most) problem = `Larger than ${sizeWords(most)}.`;
      else if (!file.size) problem = "The file is empty.";
      if (problem) {
        row.fail(problem);
        refused.push(inSentence(file.name));
      } else this.toSend.push({ row, file, fields });
    }
    if (files.length > 1 || !refused.length) this.announceAdded(files, refused);
    this.sendAll();
  }

  announceAdded(files, refused) {
    const count = files.length - refused.length;
    const name = inSentence(files[0].name);
    const added = files.length === 1 ? `${name} was added.` : `${songWords(count)} added.`;
    // The list shows all of them.
    const more = refused.length > 3 ? ` and ${refused.length - 3} more` : "";
    const names = refused.slice(0, 3).join(", ") + more;
    this.announce(refused.length ? `${added} Not added: ${names}.` : added);
  }

  /** Announce the outcome of several songs; for more than three, only counts. */
  announceOutcomes(rows) {
    if (rows.length <= 3) return this.announce(rows.map(({ outcome }) => outcome).join(" "));
    const failed = rows.filter(({ state }) => state === "failed").length;
    const ready = rows.length - failed;
    const texts = [];
    if (ready) texts.push(`${countSongs(ready)} ${ready === 1 ? "is" : "are"} ready.`);
    if (failed) texts.push(`${countSongs(failed)} failed: the list says why.`);
    return this.announce(texts.join(" "));
  }

  addRow(name) {
    const row = new SongRow(this, name);
    this.rows.push(row);
    $("songs").append(row.element);
    this.showQueue();
    return row;
  }

  /** Remove a row; the focus moves to its neighbour. */
  drop(row) {
    const place = this.rows.indexOf(row);
    this.rows.splice(place, 1);
    row.element.remove();
    this.save([row.job?.id]);
    this.unloadPlayer(row);
    const next = this.rows[Math.min(place, this.rows.length - 1)];
    if (next) next.element.querySelector("button, a").focus();
    else $("files").focus();
    this.showQueue();
  }

  showQueue() {
    $("queue").hidden = !this.rows.length;
    $("drop").classList.toggle("small", this.rows.length > 0);
    const running = this.rows.find(({ state }) => state === "running");
    const ready = this.rows.filter(({ state }) => state === "done").length;
    const news = running?.job.progress ? percent(running.job.progress) : ready && `${ready} ready`;
    document.title = news ? `${news} · unetsep` : "unetsep";
  }

  /** Upload songs one after another, in their order. */
  async sendAll() {
    if (this.sending) return;
    this.sending = true;
    while (this.toSend.length) await this.sendOne(this.toSend.shift());
    this.sending = false;
  }

  async sendOne(song) {
    const { row, file, fields } = song;
    if (row.state === "removed") return;
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("file", file);
    row.sender = new Sender();
    try {
      const job = await row.sender.send(form, (share) =>
        row.say(`Uploading: ${percent(share)}`, share),
      );
      if (row.state === "removed") return;
      row.sender = null;
      row.show(job);
      this.save();
      this.poll();
    } catch (error) {
      if (row.state === "removed") return;
      if (error.status) row.sender = null; // without an answer the app may have the song
      if (error.status === 429) {
        row.say("Waiting: the queue is full", 0);
        await new Promise((resolve) => setTimeout(resolve, 3 * PERIOD));
        this.toSend.unshift(song);
      } else if (error.status === 422 && (await this.hasLost(fields.model))) {
        if (row.state === "removed") return;
        row.fail(RESTARTED, () => this.sendAgain({ ...song, fields: this.fields }));
      } else row.fail(error.message, mayPass(error) ? () => this.sendAgain(song) : null);
    }
  }

  async sendAgain(song) {
    const { row } = song;
    row.enqueue().focus();
    try {
      if (row.sender) await row.forget(row.sender.id);
      this.toSend.push(song);
      this.sendAll();
    } catch (error) {
      if (row.state !== "removed") row.fail(error.message, () => this.sendAgain(song));
    }
  }

  // Jobs

  /** Ids of the jobs of all tabs of this browser. */
  stored() {
    try {
      return JSON.parse(localStorage.getItem(KEY) ?? "[]");
    } catch {
      return []; // Without storage the list is lost when the page is reloaded.
    }
  }

  /** Store this tab's jobs and added ones with those of other tabs, except removed ones. */
  save(removed = [], added = []) {
    const ids = this.rows.filter(({ job }) => job).map(({ job }) => job.id);
    const all = [...new Set([...this.stored(), ...added, ...ids])];
    try {
      localStorage.setItem(KEY, JSON.stringify(all.filter((id) => !removed.includes(id))));
    } catch {
      // As above.
    }
  }

  /** Show the jobs of this browser after the page was reloaded. */
  async restore(ids = this.stored()) {
    if (!ids.length) return;
    let jobs;
    try {
      jobs = await this.jobs(ids);
    } catch (error) {
      this.complain(error.message);
      this.save([], ids); // also one that could not be removed
      setTimeout(() => this.restore(ids), PERIOD);
      return;
    }
    for (const job of jobs) this.addRow(job.name).show(job);
    const missing = ids.length - jobs.length;
    this.announce(missing ? `${songWords(missing)} removed, or the app was restarted.` : "");
    this.save(ids.filter((id) => !jobs.some((job) => job.id === id)));
    this.poll();
  }

  /** Request jobs, some at a time: proxies refuse long addresses. */
  async jobs(ids) {
    const jobs = [];
    for (let begin = 0; begin < ids.length; begin += SLICE) {
      const slice = ids.slice(begin, begin + SLICE);
      const query = slice.map((id) => `id=${encodeURIComponent(id)}`).join("&");
      jobs.push(...(await ask(`jobs?${query}`)).jobs);
    }
    return jobs;
  }

  /** Announce why a request failed, once; an empty text withdraws that message. */
  complain(trouble) {
    const shown = $("message").textContent;
    if (shown !== trouble && (trouble || shown === this.trouble)) this.announce(trouble);
    this.trouble = trouble;
  }

  /** Poll the unfinished jobs while there are any. */
  poll() {
    this.polling ??= setTimeout(() => this.look(), PERIOD);
  }

  async look() {
    const rows = this.rows.filter(({ job, state }) => job && ["queued", "running"].includes(state));
    try {
      if (rows.length) {
        const jobs = new Map();
        for (const job of await this.jobs(rows.map(({ job }) => job.id))) jobs.set(job.id, job);
        for (const row of rows) {
          if (!row.job || row.state === "removed") continue; // meanwhile
          if (jobs.has(row.job.id)) row.show(jobs.get(row.job.id));
          else this.lose(row);
        }
        // Of several messages at once, only the last would be read or heard.
        const finished = rows.filter(({ state }) => ["done", "failed"].includes(state));
        if (finished.length > 1) this.announceOutcomes(finished);
        this.complain("");
      }
    } catch (error) {
      this.complain(error.message);
    }
    this.polling = null;
    if (rows.length) this.poll();
  }

  /** Fail a row whose job the server no longer has. */
  lose(row) {
    if (!row.job || row.state === "removed") return;
    const { id } = row.job;
    row.job = null;
    this.save([id]);
    this.unloadPlayer(row);
    row.fail(GONE);
  }

  /** Whether the server still has the stems of a row, and a file; if not, say why. */
  async check(row, url = null) {
    try {
      const [job] = await this.jobs([row.job.id]);
      if (!job) this.lose(row);
      else if (url) await ask(url, { headers: { Range: "bytes=0-0" } }); // a zip needs room
      return Boolean(job) && row.state !== "removed";
    } catch (error) {
      this.announce(error.message);
      return false;
    }
  }

  async listen(row) {
    if (!(await this.check(row)) || $("player").open) return; // after a double click
    if (this.listened !== row || !this.engine) this.showPlayer(row.job.player.slice(1));
    this.listened = row;
    history.pushState(PLAYER, "");
    $("player").setAttribute("aria-label", row.name);
    $("player").showModal();
    $("frame").contentWindow.focus();
  }

  /** The engine of the player in the frame, once its song is open. */
  get engine() {
    // The document is null where the browser shows an error.
    return $("frame").contentDocument && $("frame").contentWindow.unetsepPlayer?.engine;
  }

  /** Load a page in a new frame: in the old one, a step back would show its previous page. */
  showPlayer(url) {
    const frame = $("frame").cloneNode();
    frame.src = url;
    $("frame").replaceWith(frame);
  }

  /** Let go of the player of a song that is gone. */
  unloadPlayer(row) {
    if (this.listened === row && !$("player").open) this.showPlayer("about:blank");
  }
}

const app = new App();
window.unetsepApp = app; // for tests and debugging
app.start();
