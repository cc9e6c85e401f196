"use strict";
// A lane shows one stem and its controls.

/** Create an element: make("button", { class: "mute", text: "M" }, child, ...). */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

function panText(pan) {
  const share = Math.round(100 * Math.abs(pan));
  return share === 0 ? "centre" : `${share} % ${pan < 0 ? "left" : "right"}`;
}

/** Set a text; one that stays the same must not be announced again. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set a slider, and the length of the line from its left end to the knob. */
function setRange(input, value) {
  input.value = value;
  const [min, max] = [Number(input.min), Number(input.max)];
  input.style.setProperty("--share", (input.value - min) / (max - min));
}

/** A double click on a slider, or its delete key, resets it. */
function onReset(input, reset) {
  input.addEventListener("dblclick", reset);
  input.addEventListener("keydown", ({ key }) => /^(Delete|Backspace)$/.test(key) && reset());
}

const DARK = matchMedia("(prefers-color-scheme: dark)");
const STRONG = matchMedia("(prefers-contrast: more)");

const rgb = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const mix = (one, other, share) =>
  one.map((c, i) => Math.round(share * c + (1 - share) * other[i]));

/** The contrast of two colours by WCAG 2. */
function contrast(...colours) {
  const [dark, light] = colours
    .map((colour) => {
      const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
      const [r, g, b] = colour.map((c) => linear(c / 255));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    })
    .sort((one, other) => one - other);
  return light / dark;
}

/**
 * Colours of a waveform before and after it is played, opaque: wavesurfer draws the second over
 * the first. Users who ask for contrast get 3 and 7 to 1.
 */
function waveColours(colour) {
  const paper = DARK.matches ? [29, 32, 37] : [255, 255, 255];
  const ink = DARK.matches ? [228, 229, 231] : [35, 38, 43];
  // -1 is paper, 0 the colour, 1 ink.
  const shade = (place) => mix(place < 0 ? paper : ink, rgb(colour), Math.abs(place));
  const strong = (least) => {
    let place = -1;
    while (contrast(shade(place), paper) < least) place += 0.05;
    return shade(place);
  };
  const colours = STRONG.matches ? [strong(3), strong(7)] : [shade(-0.5), shade(0)];
  const [waveColor, progressColor] = colours.map((one) => `rgb(${one.join(" ")})`);
  return { waveColor, progressColor };
}

/** Black or white, whichever is easier to read on a colour. */
function inkOn(colour) {
  const [black, white] = [0, 255].map((c) => contrast(rgb(colour), [c, c, c]));
  return black > white ? "#000000" : "#ffffff";
}

class Lane {
  /**
   * @param {string} name of the stem
   * @param {number} number its key
   * @param {Mixer} mixer the settings that the controls change
   * @param {object} actions mixed(), seek(share), drag(share, share), loop(share, share), cancel()
   */
  constructor(name, number, mixer, actions) {
    Object.assign(this, { name, mixer, actions });
    this.element = make("section", { class: "lane", "aria-label": name });
    this.mute = this.button("mute", "M", `Mute ${name}`, "muted");
    const hasKey = number <= 9;
    const solo = hasKey ? `Solo ${name} (key ${number})` : `Solo ${name}`;
    this.solo = this.button("solo", "S", solo, "solo");
    this.volume = this.slider("volume", `Volume of ${name}`, 0, 1.5, percent);
    this.pan = this.slider("pan", `Pan of ${name}`, -1, 1, panText);
    this.view = make("div", { class: "view", "aria-hidden": "true" });
    this.wave = make("div", { class: "wave" });
    this.picture = make("img", { class: "spectrogram", alt: "", draggable: "false" });
    this.view.append(this.wave, this.picture, make("div", { class: "looped" }));
    this.head = make("div", { class: "head" });
    this.view.append(this.head);
    const title = make("h2", {}, make("i", { class: "dot" }), name);
    const key = hasKey ? [make("kbd", { text: number })] : [];
    const buttons = make("div", { class: "buttons" }, this.mute, this.solo, ...key);
    const dials = make("div", { class: "dials" }, this.volume.label, this.pan.label);
    this.element.append(make("div", { class: "strip" }, title, buttons, dials), this.view);
    this.listen();
  }

  button(kind, text, label, setting) {
    const button = make("button", { class: kind, text, "aria-label": label, title: label });
    button.addEventListener("click", () => this.toggle(setting));
    return button;
  }

  /** Switch mute or solo, and return that in words. */
  toggle(setting) {
    const stem = this.mixer.stem(this.name);
    stem[setting] = !stem[setting];
    this.actions.mixed();
    return `${setting === "solo" ? "Solo" : "Mute"} ${this.name}${stem[setting] ? "" : " off"}`;
  }

  slider(setting, label, min, max, say) {
    const step = setting === "pan" ? 0.05 : 0.02;
    const input = make("input", { type: "range", "aria-label": label, min, max, step });
    input.title = `${label}; double click or delete key: reset`;
    const set = (value) => {
      this.mixer.stem(this.name)[setting] = value;
      this.actions.mixed();
    };
    // The centre of the pan is hard to hit with a pointer, and keys must leave it.
    input.addEventListener("input", () => {
      const value = Number(input.value);
      const held = input.matches(":active");
      set(setting === "pan" && held && Math.abs(value) < 0.06 ? 0 : value);
    });
    onReset(input, () => set(setting === "pan" ? 0 : 1));
    const word = make("span", { text: setting === "pan" ? "Pan" : "Vol" });
    return { input, say, label: make("label", {}, word, input) };
  }

  /** A click seeks, a drag makes a loop. */
  listen() {
    const share = (event) => {
      const { left, width } = this.view.getBoundingClientRect();
      return Math.min(1, Math.max(0, (event.clientX - left) / width));
    };
    let from = null;
    this.view.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = { x: event.clientX, share: share(event), dragged: false };
      this.view.setPointerCapture(event.pointerId);
    });
    this.view.addEventListener("pointermove", (event) => {
      if (from === null) return;
      from.dragged ||= Math.abs(event.clientX - from.x) > 6;
      if (from.dragged) this.actions.drag(from.share, share(event));
    });
    this.view.addEventListener("pointerup", (event) => {
      if (from === null) return;
      if (from.dragged) this.actions.loop(from.share, share(event));
      else this.actions.seek(share(event));
      from = null;
    });
    this.view.addEventListener("pointercancel", () => {
      from = null;
      this.actions.cancel();
    });
  }

  /** Show a model's version of the stem. */
  show(stem, path, duration) {
    this.step = null;
    this.element.style.setProperty("--stem", stem.colour);
    this.element.style.setProperty("--on-stem", inkOn(stem.colour));
    this.picture.src = `${path}/${stem.picture}`;
    const peaks = Float32Array.from(bytesOf(stem.peaks), (byte) => byte / 255);
    this.surfer ??= WaveSurfer.create({
      container: this.wave,
      height: "auto",
      interact: false,
      cursorWidth: 0,
      barWidth: 2,
      barGap: 1,
      barRadius: 1,
    });
    this.surfer.setOptions({ ...waveColours(stem.colour), maxPeak: 1 });
    this.surfer.load("", [peaks], duration).catch(() => {}); // a later load replaced it
  }

  /** Follow the mixer. */
  update() {
    const stem = this.mixer.stem(this.name);
    this.mute.setAttribute("aria-pressed", stem.muted);
    this.solo.setAttribute("aria-pressed", stem.solo);
    this.element.classList.toggle("silent", this.mixer.gain(this.name) === 0);
    for (const [setting, { input, say }] of Object.entries({
      volume: this.volume,
      pan: this.pan,
    })) {
      setRange(input, stem[setting]);
      input.setAttribute("aria-valuetext", say(stem[setting]));
    }
  }

  moveTo(seconds, share) {
    const step = Math.round(3000 * share); // half a pixel: finer steps only create garbage
    if (step === this.step) return;
    this.step = step;
    this.head.style.transform = `translateX(${100 * share}%)`;
    this.surfer?.setTime(seconds);
  }
}
