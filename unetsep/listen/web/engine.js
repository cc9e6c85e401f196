"use strict";
// Playing a song: one AudioContext, one deck that is heard, and the settings of both.

const MARGIN = 0.06; // s from a decision to the moment it is heard; more on a slow machine
const MOST_MARGIN = 1;
const MOST_WAITS = 50; // ticks, 5 s, until a sound that does not begin is given up

/** Volume, pan, mute and solo of each stem, by name, so that they outlast a change of model. */
class Mixer {
  constructor() {
    this.stems = new Map();
  }

  stem(name) {
    if (!this.stems.has(name))
      this.stems.set(name, { volume: 1, pan: 0, muted: false, solo: false });
    return this.stems.get(name);
  }

  /** Only the stems that are shown count: a hidden stem's solo must not silence them. */
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

/** A node that shifts pitch, with how late its output is. */
class Stretcher {
  static async create(context) {
    if (!context.audioWorklet)
      throw new Error(
        "Browsers change speed and pitch only on pages of this machine or over https: " +
          "set both back to hear the song",
      );
    await Stretcher.install(context);
    const channels = { numberOfInputs: 1, numberOfOutputs: 1, outputChannelCount: [2] };
    const stretcher = new Stretcher();
    stretcher.node = await SignalsmithStretch(context, channels);
    stretcher.latency = await stretcher.node.latency();
    stretcher.used = false;
    // Without any input it would look for sound in buffers of its own.
    stretcher.silence = new ConstantSourceNode(context, { offset: 0 });
    stretcher.silence.connect(stretcher.node);
    stretcher.silence.start();
    return stretcher;
  }

  /**
   * Chromium refuses worklets from blobs on pages from the disk, but takes data addresses. Where
   * it is the other way round, the library's own attempt with a blob follows.
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
    this.node.configure({}); // forget what it heard
    this.used = false;
  }
}

class Engine extends EventTarget {
  constructor(pieces, mixer) {
    super();
    Object.assign(this, { pieces, mixer, song: pieces.song });
    this.model = 0;
    this.loop = null; // {start, end} in frames
    this.looping = true; // whether the loop, if there is one, is used
    this.speed = 1;
    this.semitones = 0;
    this.volume = 1;
    this.playing = false;
    this.place = 0; // frame, while nothing plays or the place changes
    this.seeking = false; // whether the next deck begins at the place, not where this one is
    this.confined = false; // whether the next deck must not be behind the loop
    this.deck = null;
    this.stretchers = [];
    this.creating = null; // a stretcher that is being made
    this.changes = 0;
    this.preparing = Promise.resolve(); // what the last change needs
    this.margin = MARGIN;
  }

  /** The frame that is heard now. */
  get frame() {
    if (!this.playing || this.deck === null || this.seeking) return this.place;
    return this.deck.frameAt(this.context.currentTime - (this.context.outputLatency || 0));
  }

  get duration() {
    return this.song.length / this.song.sampleRate;
  }

  /** Made when it is first needed: browsers start sound only after a click or a key. */
  open() {
    if (this.context) return;
    // Else the switch of an iPhone that mutes its ring would mute the song.
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
    this.tell();
    if (this.place >= this.song.length) this.place = 0;
    this.timer = setInterval(() => this.tick(), 100);
    this.context.onstatechange = () => this.context.state !== "running" && this.interrupt();
    await this.context.resume();
    await this.change({}, this.place);
  }

  pause() {
    if (!this.playing) return;
    this.changes++; // a deck that is being made is no longer wanted
    this.place = Math.round(this.frame);
    this.playing = this.seeking = false;
    clearInterval(this.timer);
    this.deck?.stop(this.context.currentTime);
    this.deck = null;
    this.tell();
  }

  /** A call, or the lock of a phone, has stopped the sound: only a tap may bring it back. */
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
    this.tell();
    if (!this.playing) return;
    const change = ++this.changes;
    const { speed, semitones } = this; // dials may move them on before they change the sound
    try {
      const stretcher = await this.freeStretcher(speed, semitones);
      // What is needed must be decoded before it is known when it will be heard.
      await this.prepare(change);
      if (change === this.changes) await this.takeOver(stretcher, speed, semitones);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Decode what a change needs: one after another, and none that a later change has replaced. */
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
    // Whole frames: sources then start on a sample, and nothing is interpolated.
    const heard = Math.ceil(earliest * context.sampleRate) / context.sampleRate;
    const before = this.deck;
    const going = before !== null && !this.seeking;
    const loop = this.looping ? this.loop : null;
    let from = going ? Math.round(before.frameAt(heard)) : this.place;
    // The loop's end may pass between the decision for it and its deck.
    if (going && this.confined && loop !== null && from >= loop.end)
      from = loop.start + ((from - loop.end) % (loop.end - loop.start));
    this.confined = false;
    stretcher?.use(semitones - 12 * Math.log2(speed));
    const route = { context, pieces, mixer, stretcher, output: this.master };
    const deck = new Deck(route, { model, from, loop, speed }, heard);
    this.deck = deck;
    this.seeking = false;
    before?.stop(heard);
    if (!(await deck.fill())) await this.late(deck);
  }

  /** Speed is had by playing faster, and the pitch put right behind the mixer. */
  async freeStretcher(speed, semitones) {
    if (speed === 1 && semitones === 0) return null;
    const free = this.stretchers.find((one) => !one.used);
    if (free) return free;
    // Changes that come meanwhile wait for the same one, which the last of them takes.
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
    if (!this.seeking && deck.overAt(this.context.currentTime)) {
      this.pause();
      this.place = 0;
      this.tell();
      return;
    }
    try {
      if (!(await deck.fill())) await this.late(deck);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Without a device, or a click, browsers keep everybody waiting, and never say why. */
  awaitSound() {
    if (this.context.state === "running" || ++this.waits < MOST_WAITS) return;
    this.fail(
      new Error("No sound begins: press play again, or connect a device and load this page again"),
    );
  }

  /** A piece came too late, on a slow machine: go on from where it was missed. */
  async late(deck) {
    this.margin = Math.min(MOST_MARGIN, 2 * this.margin);
    if (deck === this.deck && !this.seeking) await this.change({}, Math.round(deck.next));
  }

  fail(error) {
    this.pause();
    this.dispatchEvent(new CustomEvent("failure", { detail: error }));
  }

  setVolume(volume) {
    this.volume = volume;
    this.master?.gain.setTargetAtTime(volume, this.context.currentTime, 0.008);
    this.tell();
  }

  /** Tell decks and page that the mixer has changed. */
  mixed() {
    this.deck?.strips.update(this.mixer, this.context.currentTime);
    this.tell();
  }

  tell() {
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Stop, and leave what plays to the next song if it has the same rate. Safari would let a new
   * context begin only soon after a click, and the song may have come later.
   */
  handOver(next) {
    this.pause();
    const { context, master, stretchers } = this;
    if (context?.sampleRate !== next.song.sampleRate) return context?.close();
    return Object.assign(next, { context, master, stretchers });
  }
}
