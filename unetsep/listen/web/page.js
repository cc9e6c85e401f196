"use strict";
// The page: builds the controls, updates them from the engine, and handles keys.

const PLAY = "M8 5.5v13l11-6.5z";
const PAUSE = "M7 5h4v14H7zm6 0h4v14h-4z";
const TOO_SHORT = "No loop: it would be shorter than 0.1 seconds";

function clock(seconds) {
  const total = Math.floor(seconds);
  const [h, m, s] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  const twoDigits = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${twoDigits(m)}:${twoDigits(s)}` : `${m}:${twoDigits(s)}`;
}

/** The letter on a key; on keyboards of other scripts, the Latin letter of that key. */
function letterOf(key, code) {
  if (key.length !== 1) return key;
  const brackets = { BracketLeft: "[", BracketRight: "]" };
  const latin = brackets[code] ?? code.replace("Key", "");
  const foreign = /\p{Letter}/u.test(key) && !/\p{Script=Latin}/u.test(key);
  return (foreign ? latin : key).toLowerCase();
}

/** Rebuild a part of the page; the focus stays on the control of the same name. */
function keepFocus(part, remake) {
  const name = (control) => control.getAttribute("aria-label") ?? control.textContent;
  const { activeElement } = document;
  const focused = part.contains(activeElement) ? name(activeElement) : null;
  remake();
  if (focused === null) return;
  const controls = [...part.querySelectorAll("button, input")];
  (controls.find((control) => name(control) === focused) ?? controls[0]).focus();
}

/** Store the state of a checkbox for the next visit, if the browser allows it. */
function keepChoice(box) {
  const name = `unetsep.${box.id}`;
  try {
    box.checked = JSON.parse(localStorage.getItem(name)) ?? box.checked;
    box.addEventListener("change", () => localStorage.setItem(name, box.checked));
  } catch {
    // Without storage it holds until the page is reloaded.
  }
}

class Page {
  constructor() {
    this.mixer = new Mixer();
    this.lanes = [];
    this.model = null; // model of the lanes
    this.engine = null;
    this.focused = null;
    this.openCount = 0; // songs opened so far
    this.listSongs();
    this.bind();
    this.choose("views", ["Both", "Waveforms", "Spectrograms"], (i) => this.setView(i));
    this.setView(0);
    requestAnimationFrame(() => this.draw());
  }

  /** The open song. */
  get song() {
    return this.engine.song;
  }

  listSongs() {
    const several = album.songs.length > 1;
    $("songs").hidden = !several;
    document.body.classList.toggle("album", several);
    if (!several) return;
    $("songs").append(make("h2", { text: album.title }));
    const list = make("ol");
    album.songs.forEach((song, i) => {
      const button = make("button", { text: song.name });
      button.addEventListener("click", () => this.open(i));
      list.append(make("li", {}, button));
    });
    $("songs").append(list);
  }

  /** Show a song with the settings of the previous one, which stops. */
  async open(index) {
    const { name, key } = album.songs[index];
    const path = `${album.folder}/${key}`;
    const count = ++this.openCount;
    try {
      const song = await loadData(key, `${path}/song.js`);
      if (count !== this.openCount) return; // another song was opened meanwhile
      const previous = this.engine;
      const playing = previous?.playing ?? false;
      this.engine = new Engine(new Pieces(path, key, song), this.mixer);
      if (previous) {
        const { speed, semitones, volume } = previous;
        Object.assign(this.engine, { speed, semitones, volume });
      }
      this.engine.addEventListener("change", () => this.update());
      this.engine.addEventListener("failure", ({ detail }) => this.say(detail.message));
      this.show(index, name);
      await Promise.all([previous?.handOver(this.engine), playing && this.engine.play()]);
    } catch (error) {
      this.say(error.message);
    }
  }

  show(index, name) {
    const { song } = this;
    this.say("");
    for (const id of ["transport", "edges"]) $(id).inert = false;
    this.model = null;
    $("title").textContent = name;
    document.title = name;
    $("position").max = song.length / song.sampleRate;
    document.querySelectorAll("#songs button").forEach((button, i) => {
      if (i === index) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
    const names = song.models.map((model) => model.name || "stems");
    $("models").hidden = names.length < 2;
    this.choose("models", names, (model) => this.engine.change({ model }));
    this.update();
  }

  /** A row of radio buttons. */
  choose(id, names, action) {
    const row = make("div", { class: "row" });
    names.forEach((name, i) => {
      const input = make("input", { type: "radio", name: id, value: i });
      input.checked = i === 0;
      input.addEventListener("change", () => action(i));
      row.append(make("label", {}, input, make("span", { text: name })));
    });
    $(id).querySelector(".row")?.remove();
    $(id).append(row);
  }

  setView(index) {
    $("lanes").className = ["both", "waveforms", "spectrograms"][index];
  }

  /** Lanes and presets for the stems of the current model. */
  showModel() {
    const { stems } = this.song.models[this.engine.model];
    const { path } = this.engine.pieces;
    const names = stems.map((stem) => stem.name);
    const oldNames = this.lanes.map((lane) => lane.name);
    if (names.join("\n") !== oldNames.join("\n"))
      keepFocus($("lanes"), () => this.makeLanes(names));
    stems.forEach((stem, i) => this.lanes[i].show(stem, path, this.engine.duration));
    this.model = this.engine.model;
    this.drawnSeconds = null; // draw the position again
    const khz = this.song.sampleRate / 1000;
    const count = stems.length === 1 ? "1 stem" : `${stems.length} stems`;
    $("facts").textContent = `${count} · ${clock(this.engine.duration)} · ${khz} kHz`;
  }

  makeLanes(names) {
    this.mixer.show(names);
    this.lanes.forEach((lane) => lane.surfer?.destroy());
    const actions = {
      mixed: () => this.engine.mixed(),
      seek: (share) => this.engine.seek(share * this.song.length),
      drag: (one, other) => this.drawLoop(this.span(one, other)),
      loop: (one, other) => this.setLoop(this.span(one, other)),
      cancel: () => this.drawLoop(this.engine.loop),
    };
    this.lanes = names.map((name, i) => new Lane(name, i + 1, this.mixer, actions));
    this.focused = null;
    $("lanes").replaceChildren(...this.lanes.map((lane) => lane.element));
    keepFocus($("presets"), () => this.makePresets(names));
  }

  makePresets(names) {
    const vocals = names.filter(
      (name) => /vocal|voice/i.test(name) && !/^no[_ ]|instrument/i.test(name),
    );
    const presets = [["All", []]];
    if (vocals.length && names.length > 1) presets.push(["Karaoke", vocals]);
    for (const name of names.length > 2 ? names : [])
      if (!vocals.includes(name)) presets.push([`No ${name}`, [name]]);
    if (vocals.length && names.length > 2)
      presets.push(["Vocals only", names.filter((name) => !vocals.includes(name))]);
    const row = make("div", { class: "row" });
    this.presets = presets.map(([title, muted]) => {
      const button = make("button", { text: title });
      button.addEventListener("click", () => {
        for (const name of names)
          Object.assign(this.mixer.stem(name), { muted: muted.includes(name), solo: false });
        this.engine.mixed();
      });
      row.append(button);
      return { button, audible: names.filter((name) => !muted.includes(name)).join("\n") };
    });
    $("presets").querySelector(".row")?.remove();
    $("presets").append(row);
  }

  span(one, other) {
    const { length } = this.song;
    const [start, end] = [Math.min(one, other), Math.max(one, other)];
    return { start: Math.round(start * length), end: Math.round(end * length) };
  }

  /** Loop a span; playback moves to its start unless it is inside already. */
  setLoop(loop) {
    const shortest = Math.round(0.1 * this.song.sampleRate);
    if (loop.end - loop.start < shortest) {
      this.update();
      return this.say(TOO_SHORT);
    }
    if ($("message").textContent === TOO_SHORT) this.say("");
    const { frame } = this.engine;
    const outside = frame < loop.start || frame >= loop.end;
    this.engine.change({ loop, looping: true }, outside ? loop.start : null);
    return `Loop ${this.loopTimes}`;
  }

  get loopTimes() {
    const { loop } = this.engine;
    return loop ? `${this.clockAt(loop.start)} to ${this.clockAt(loop.end)}` : "";
  }

  clockAt(frame) {
    return clock(frame / this.song.sampleRate);
  }

  toggleLoop() {
    const { engine, song } = this;
    if (engine.loop) {
      engine.change({ looping: !engine.looping });
      return engine.looping ? `Loop ${this.loopTimes}` : "Loop off";
    }
    const start = Math.min(Math.round(engine.frame), song.length - song.sampleRate);
    const end = Math.min(song.length, start + 8 * song.sampleRate);
    return this.setLoop({ start: Math.max(0, start), end });
  }

  /** Start or end the loop at the current position. */
  edgeLoop(edge) {
    const place = Math.round(this.engine.frame);
    const loop = { start: 0, end: this.song.length, ...this.engine.loop, [edge]: place };
    if (loop.start >= loop.end)
      loop[edge === "start" ? "end" : "start"] = edge === "start" ? this.song.length : 0;
    return this.setLoop(loop);
  }

  drawLoop(loop) {
    const style = document.documentElement.style;
    style.setProperty("--loop-start", loop ? loop.start / this.song.length : 0);
    style.setProperty("--loop-end", loop ? loop.end / this.song.length : 0);
  }

  /** Follow the engine and the mixer. */
  update() {
    const { engine } = this;
    if (this.model !== engine.model) this.showModel();
    this.lanes.forEach((lane) => lane.update());
    const audible = this.lanes
      .filter(({ name }) => this.mixer.gain(name) > 0)
      .map(({ name }) => name);
    for (const preset of this.presets)
      preset.button.setAttribute("aria-pressed", preset.audible === audible.join("\n"));
    const radios = document.querySelectorAll("#models input");
    radios.forEach((radio, i) => (radio.checked = i === engine.model));
    $("play").setAttribute("aria-label", engine.playing ? "Pause" : "Play");
    $("play")
      .querySelector("path")
      .setAttribute("d", engine.playing ? PAUSE : PLAY);
    $("loop").setAttribute("aria-pressed", engine.loop !== null && engine.looping);
    $("save").querySelector("span").textContent =
      engine.loop && engine.looping ? "Save loop" : "Save mix";
    document.body.classList.toggle("looping", engine.looping);
    this.drawLoop(engine.loop);
    setText($("loop-times"), this.loopTimes);
    this.sayDials();
    if (!engine.playing) this.sayPosition();
  }

  sayDials() {
    const { speed, semitones, volume } = this.engine;
    $("speed-value").textContent = percent(speed);
    $("pitch-value").textContent =
      semitones > 0 ? `+${semitones}` : `${semitones}`.replace("-", "−");
    $("volume-value").textContent = percent(volume);
    setRange($("speed"), 100 * speed);
    setRange($("pitch"), semitones);
    setRange($("volume"), 100 * volume);
    $("pitch").setAttribute("aria-valuetext", `${semitones} semitones`);
    for (const id of ["speed", "volume"])
      $(id).setAttribute("aria-valuetext", $(`${id}-value`).textContent);
  }

  /** Draw the position, once per frame of the screen. Styles of the root would cost more. */
  draw() {
    requestAnimationFrame(() => this.draw());
    if (!this.engine) return;
    const seconds = this.engine.frame / this.song.sampleRate;
    const same = this.engine.song === this.drawnSong;
    if (same && seconds === this.drawnSeconds) return;
    [this.drawnSeconds, this.drawnSong] = [seconds, this.engine.song];
    this.lanes.forEach((lane) => lane.moveTo(seconds, seconds / this.engine.duration));
    const tenths = Math.floor(10 * seconds);
    if (same && tenths === this.tenths) return;
    this.tenths = tenths;
    setRange($("position"), seconds);
    // While the song plays, a screen reader would talk over it every second.
    if (document.activeElement !== $("position")) this.sayPosition();
    setText($("clock"), `${clock(seconds)} / ${clock(this.engine.duration)}`);
  }

  sayPosition() {
    $("position").setAttribute("aria-valuetext", this.clockAt(this.engine.frame));
  }

  bind() {
    $("play").addEventListener("click", () => this.togglePlay());
    $("loop").addEventListener("click", () => this.toggleLoop());
    for (const edge of ["start", "end"])
      $(`loop-${edge}`).addEventListener("click", () => this.speak(this.edgeLoop(edge)));
    $("save").addEventListener("click", () => this.save());
    $("position").addEventListener("input", () => {
      this.engine.seek($("position").value * this.song.sampleRate);
      this.sayPosition();
    });
    $("volume").addEventListener("input", () => this.engine.setVolume($("volume").value / 100));
    for (const id of ["speed", "pitch"]) {
      $(id).addEventListener("input", () => this.setDials());
      onReset($(id), () => {
        $(id).value = id === "speed" ? 100 : 0;
        this.setDials();
      });
    }
    for (const query of [DARK, STRONG])
      query.addEventListener("change", () => this.engine && this.showModel());
    keepChoice($("keys"));
    document.addEventListener("keydown", (event) => this.key(event));
    // A click focuses a button, a choice or a summary, which would then take space and arrows:
    // remove the focus. Users of the tab key keep it.
    document.addEventListener("pointerup", (event) => {
      const control = event.target.closest?.("button, input, label, summary");
      setTimeout(() => (control?.control ?? control)?.blur(), 0);
    });
    document.addEventListener("focusout", () => (this.focused = null));
    document.addEventListener("focusin", (event) => {
      const lane = event.target.closest?.(".lane");
      this.focused = this.lanes.find(({ element }) => element === lane) ?? null;
    });
  }

  /** Apply speed and pitch from their sliders, 0.1 s after the last movement. */
  setDials() {
    const settings = { speed: $("speed").value / 100, semitones: Number($("pitch").value) };
    Object.assign(this.engine, settings);
    this.sayDials();
    clearTimeout(this.dialing);
    this.dialing = setTimeout(() => this.engine.change(settings), 100);
  }

  togglePlay() {
    if (this.engine.playing) return this.engine.pause();
    // Clear an earlier failure to play, but no other message.
    if ($("message").textContent === this.engine.failure) this.say("");
    return this.engine.play();
  }

  key(event) {
    // Many keyboards need AltGr for brackets, which Windows reports as ctrl and alt, or Option.
    const bracket = event.altKey && (event.key === "[" || event.key === "]");
    const modified = event.metaKey || ((event.ctrlKey || event.altKey) && !bracket);
    if (!this.engine || modified) return;
    const { target } = event;
    const onButton = target.matches("button, summary, a, [type=checkbox]");
    const onPosition = target === $("position"); // its own arrows move by a millisecond
    // Users of speech input, or who often hit a wrong key, can switch letters and signs off, and
    // users who zoom in the arrows that scroll.
    const optional = /^([^ ]|ArrowUp|ArrowDown)$/u.test(event.key);
    if (optional && !$("keys").checked && !(onPosition && event.key.length > 1)) return;
    const onInput = target.matches("input") && !onPosition;
    const action = this.action(event, onPosition);
    if (!action || (onButton && event.key === " ") || (onInput && event.key.startsWith("Arrow")))
      return;
    event.preventDefault();
    const isArrow = event.key.startsWith("Arrow");
    if (event.repeat && !isArrow) return; // a key that is held down must not toggle repeatedly
    const words = action();
    if (onPosition && isArrow) this.sayPosition();
    else this.speak(words);
  }

  /**
   * What a key does, or undefined; on the slider of the position all arrows seek. The function
   * returns the new state in words, or nothing where it is heard.
   */
  action({ key, code, shiftKey }, onPosition = false) {
    const { engine } = this;
    const { models, sampleRate } = this.song;
    const seek = (by) => () => {
      engine.seek(engine.frame + by * (shiftKey ? 1 : 5) * sampleRate);
      return this.clockAt(engine.frame);
    };
    const louder = (by) => () => this.setVolume(Math.min(1, Math.max(0, engine.volume + by)));
    const [back, forward] = [seek(-1), seek(1)];
    // Without Num Lock the number pad has arrows, and with shift digits give other characters.
    const digit = /^Digit([1-9])$/.exec(code) ?? /^([1-9])$/.exec(key);
    if (digit) return () => this.lanes[digit[1] - 1]?.toggle(shiftKey ? "muted" : "solo");
    return {
      " ": () => void this.togglePlay(),
      ArrowLeft: back,
      ArrowRight: forward,
      ArrowUp: onPosition ? forward : louder(0.05),
      ArrowDown: onPosition ? back : louder(-0.05),
      m: () => this.mute(),
      l: () => this.toggleLoop(),
      "[": () => this.edgeLoop("start"),
      "]": () => this.edgeLoop("end"),
      c: () => {
        engine.change({ model: (engine.model + 1) % models.length });
        return `Model ${models[engine.model].name || "stems"}`;
      },
    }[letterOf(key, code)];
  }

  mute() {
    if (this.focused) return this.focused.toggle("muted");
    if (this.engine.volume > 0) this.volume = this.engine.volume;
    return this.setVolume(this.engine.volume > 0 ? 0 : (this.volume ?? 1));
  }

  setVolume(volume) {
    this.engine.setVolume(volume);
    return `Volume ${percent(volume)}`;
  }

  async save() {
    if (this.saving) return;
    this.saving = true;
    $("save").setAttribute("aria-disabled", "true"); // disabled would lose the focus
    // The name of the song that is open now: another may be when the mix is ready.
    const name = `${$("title").textContent.replaceAll("/", " - ")} (mix).wav`;
    try {
      const wav = await renderMix(this.engine, (share) => this.saySaved(share));
      const link = make("a", { download: name });
      link.href = URL.createObjectURL(wav);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      this.say("The mix is ready.");
    } catch (error) {
      this.say(error.message);
    } finally {
      this.saving = false;
      $("save").removeAttribute("aria-disabled");
    }
  }

  /** Tell screen readers what a key did, which others see. */
  speak(text = "") {
    $("spoken").textContent = text;
  }

  say(text) {
    $("message").removeAttribute("aria-live");
    $("message").textContent = text;
  }

  /** Show the saved share; screen readers announce only the beginning and the end. */
  saySaved(share) {
    this.say(`Saving the mix: ${percent(share)}`);
    if (share > 0) $("message").setAttribute("aria-live", "off");
  }
}

const page = new Page();
window.unetsepPlayer = page; // for tests, and for the console
page.open(0);
