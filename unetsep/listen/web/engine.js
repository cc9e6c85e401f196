"use strict";
// Playing a song: one AudioContext, one audible deck, and the settings of both.

const MARGIN = 0.06; // s from a change until it is audible; more on a slow machine
const MOST_MARGIN = 1;
const MOST_WAITS = 50; // ticks: timeout of 5 s for audio to start
const NODE_TIMEOUT = { ms: 20_000 }; // for a stretcher to start

/** Volume, pan, mute and solo of each stem, by name, so that a change of model keeps them. */
class Mixer {
  constructor() {
    this.stems = new Map();
  }

  stem(name) {
    if (!this.stems.has(name))
      this.stems.set(name, { volume: 1, pan: 0, muted: false, solo: false });
    return this.stems.get(name);
  }

  /** Add the stems of the page; reset solo of hidden stems, which would silence all others. */
  show(names) {
    for (const name of this.stems.keys()) if (!names.includes(name)) this.stem(name).solo = false;
    for (const name of names) this.stem(name);
  }

  gain(name) {
    const anySolo = [...this.stems.values()].some((stem) => stem.solo);
    const { solo, muted, volume } = this.stem(name);
    return (anySolo ? solo : !muted) ? volume : 0;
  }

  pan(name) {
    return this.stem(name).pan;
  }

  copy() {
    const mixer = new Mixer();
    for (const [name, stem] of this.stems) mixer.stems.set(name, { ...stem });
    return mixer;
  }
}

/** The node of a stretcher: it never comes if the browser has no memory for its WebAssembly. */
function inTime(node) {
  return new Promise((resolve, reject) => {
    const error = new Error(
      "The browser has no memory left to change speed or pitch: reload this page",
    );
    const timer = setTimeout(() => reject(error), NODE_TIMEOUT.ms);
    node.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** A node that shifts pitch, with its latency. */
class Stretcher {
  static async create(context) {
    if (!context.audioWorklet)
      throw new Error(
        "Browsers change speed and pitch only on pages of this machine or over https: " +
          "reset both to hear the song",
      );
    await Stretcher.install(context);
    const channels = { numberOfInputs: 1, numberOfOutputs: 1, outputChannelCount: [2] };
    const stretcher = new Stretcher();
    stretcher.node = await inTime(SignalsmithStretch(context, channels));
    stretcher.latency = await stretcher.node.latency();
    stretcher.used = false;
    // Without any input the node would read its own buffers.
    stretcher.silence = new ConstantSourceNode(context, { offset: 0 });
    stretcher.silence.connect(stretcher.node);
    stretcher.silence.start();
    return stretcher;
  }

  /**
   * On pages from the disk Chromium refuses worklets from blobs, but allows data URLs. For
   * browsers that do the opposite, the library itself then tries a blob.
   */
  static async install(context) {
    if (context.stretcherInstalled) return;
    const code = encodeURIComponent($("stretcher-js").textContent);
    try {
      await context.audioWorklet.addModule(`data:text/javascript;charset=utf-8,${code}`);
    } catch (error) {
      console.info(error.message);
    }
    context.stretcherInstalled = true;
  }

  use(semitones) {
    this.used = true;
    // Without a tonality limit all frequencies move by the same ratio.
    return this.node.schedule({ active: true, semitones, tonalityHz: 0 });
  }

  free() {
    this.node.disconnect();
    this.node.configure({}); // clear its buffers
    this.used = false;
  }
}

class Engine extends EventTarget {
  constructor(pieces, mixer) {
    super();
    Object.assign(this, { pieces, mixer, song: pieces.song });
    this.model = 0;
    this.loop = null; // {start, end} in frames
    this.looping = true; // whether the loop, if there is one, is active
    this.speed = 1;
    this.semitones = 0;
    this.volume = 1;
    this.playing = false;
    this.place = 0; // frame, while nothing plays or the place changes
    this.seeking = false; // whether the next deck starts at the place, not where this one is
    this.confined = false; // whether the next deck must not start after the loop
    this.deck = null;
    this.stretchers = [];
    this.creating = null; // promise of a new stretcher
    this.changes = 0;
    this.preparing = Promise.resolve(); // decoding for the last change
    this.margin = MARGIN;
    this.failure = null; // message, until sound comes again
  }

  /** The frame that is audible now. */
  get frame() {
    if (!this.playing || this.deck === null || this.seeking) return this.place;
    return this.deck.frameAt(this.context.currentTime - (this.context.outputLatency || 0));
  }

  get duration() {
    return this.song.length / this.song.sampleRate;
  }

  /** Create the context on first use: browsers start audio only after a click or a key. */
  open() {
    if (this.context) return;
    // Else the ring switch of an iPhone would mute the song.
    if (navigator.audioSession) navigator.audioSession.type = "playback";
    this.context = new AudioContext({
      sampleRate: this.song.sampleRate,
      latencyHint: "interactive",
    });
    this.master = new GainNode(this.context, { gain: this.volume });
    this.master.connect(this.context.destination);
  }

  async play() {
    this.open();
    if (this.playing) return;
    this.playing = true;
    this.waits = 0;
    this.notify();
    if (this.place >= this.song.length) this.place = 0;
    this.timer = setInterval(() => this.tick(), 100);
    this.context.onstatechange = () => this.context.state !== "running" && this.interrupt();
    await this.context.resume();
    await this.change({}, this.place);
  }

  pause() {
    if (!this.playing) return;
    this.changes++; // discard a deck in preparation
    this.place = Math.round(this.frame);
    this.playing = this.seeking = false;
    clearInterval(this.timer);
    this.deck?.stop(this.context.currentTime);
    this.deck = null;
    this.notify();
  }

  /** A call, or the lock of a phone, has stopped the audio: only a tap may resume it. */
  interrupt() {
    if (this.deck !== null) this.pause();
  }

  seek(frame) {
    const place = Math.round(Math.min(Math.max(0, frame), this.song.length));
    return this.change({}, place);
  }

  /** Change model, loop, looping, speed or semitones, or the place, or all at once. */
  async change(settings, place = null) {
    Object.assign(this, settings);
    if (place !== null) Object.assign(this, { place, seeking: true });
    else if (("loop" in settings || "looping" in settings) && !this.seeking)
      this.confined = this.looping && this.loop !== null && this.frame < this.loop.end;
    this.notify();
    if (!this.playing) return;
    const change = ++this.changes;
    const { speed, semitones } = this; // dials may change both again meanwhile
    try {
      const stretcher = await this.freeStretcher(speed, semitones);
      // Decode first: only then is the start time known.
      await this.prepare(change);
      if (change === this.changes) await this.takeOver(stretcher, speed, semitones);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Decode what a change needs, in sequence; skip changes that a later one has replaced. */
  prepare(change) {
    const decode = () =>
      change === this.changes && this.pieces.get(this.model, this.pieceAt(this.frame));
    return (this.preparing = this.preparing.then(decode, decode));
  }

  pieceAt(frame) {
    return Math.floor(Math.min(frame, this.song.length - 1) / this.song.piece);
  }

  async takeOver(stretcher, speed, semitones) {
    const { context, pieces, mixer, model } = this;
    const earliest = context.currentTime + this.margin + (stretcher?.latency ?? 0);
    // Whole frames: sources then start on a sample, without interpolation.
    const startTime = Math.ceil(earliest * context.sampleRate) / context.sampleRate;
    const previous = this.deck;
    const continues = previous !== null && !this.seeking;
    const loop = this.looping ? this.loop : null;
    let from = continues ? Math.round(previous.frameAt(startTime)) : this.place;
    // Playback may pass the loop's end between the change and the new deck.
    if (continues && this.confined && loop !== null && from >= loop.end)
      from = loop.start + ((from - loop.end) % (loop.end - loop.start));
    this.confined = false;
    stretcher?.use(semitones - 12 * Math.log2(speed));
    const route = { context, pieces, mixer, stretcher, output: this.master };
    const deck = new Deck(route, { model, from, loop, speed }, startTime);
    this.deck = deck;
    this.seeking = false;
    this.failure = null;
    previous?.stop(startTime);
    if (!(await deck.fill())) await this.restart(deck);
  }

  /** Sources play at the speed, and a stretcher after the mixer corrects the pitch. */
  async freeStretcher(speed, semitones) {
    if (speed === 1 && semitones === 0) return null;
    const free = this.stretchers.find((stretcher) => !stretcher.used);
    if (free) return free;
    // Further changes meanwhile wait for the same stretcher, which the last of them uses.
    this.creating ??= this.createStretcher().finally(() => (this.creating = null));
    return this.creating;
  }

  async createStretcher() {
    const stretcher = await Stretcher.create(this.context);
    this.stretchers.push(stretcher);
    return stretcher;
  }

  async tick() {
    const { deck } = this;
    if (deck === null) return this.awaitSound();
    if (!this.seeking && deck.hasEndedAt(this.context.currentTime)) {
      this.pause();
      this.place = 0;
      this.notify();
      return;
    }
    try {
      if (!(await deck.fill())) await this.restart(deck);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Without a device, or a click, audio does not start, and browsers report no error. */
  awaitSound() {
    if (this.context.state === "running" || ++this.waits < MOST_WAITS) return;
    this.fail(
      new Error("No sound starts: press play again, or connect a device and reload this page"),
    );
  }

  /** A piece was decoded too late, on a slow machine: continue at its beginning. */
  async restart(deck) {
    this.margin = Math.min(MOST_MARGIN, 2 * this.margin);
    if (deck === this.deck && !this.seeking) await this.change({}, Math.round(deck.next));
  }

  fail(error) {
    this.pause();
    this.failure = error.message;
    this.dispatchEvent(new CustomEvent("failure", { detail: error }));
  }

  setVolume(volume) {
    this.volume = volume;
    this.master?.gain.setTargetAtTime(volume, this.context.currentTime, 0.008);
    this.notify();
  }

  /** Notify deck and page that the mixer has changed. */
  mixed() {
    this.deck?.strips.update(this.mixer, this.context.currentTime);
    this.notify();
  }

  notify() {
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Stop, and pass the context to the next song if it has the same rate. Safari starts a new
   * context only soon after a click, and loading the song may take longer.
   */
  handOver(next) {
    this.pause();
    const { context, master, stretchers } = this;
    if (context?.sampleRate !== next.song.sampleRate) return context?.close();
    return Object.assign(next, { context, master, stretchers });
  }
}
