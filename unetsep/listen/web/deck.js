"use strict";
// A deck plays one model from a place. For each change (place, model, loop, speed, pitch) a new
// deck takes over from the old one at a known time; so nothing ever jumps or drifts.

const FADE = 0.012; // s, from one deck to the next
const AHEAD = 4; // s of audio scheduled in advance

/** Gains and pans of all stems, between sources and one bus. */
class Strips {
  constructor(context, stems, mixer) {
    this.bus = new GainNode(context, { channelCount: 2, channelCountMode: "explicit" });
    this.strips = stems.map(({ name }) => {
      const gain = new GainNode(context, { gain: mixer.gain(name) });
      // Mono becomes stereo before it is panned: the middle then keeps its level.
      const options = { pan: mixer.pan(name), channelCount: 2, channelCountMode: "explicit" };
      const panner = new StereoPannerNode(context, options);
      gain.connect(panner).connect(this.bus);
      return { name, gain, panner };
    });
  }

  /** Follow the mixer, without clicks. */
  update(mixer, now) {
    for (const { name, gain, panner } of this.strips) {
      gain.gain.setTargetAtTime(mixer.gain(name), now, 0.008);
      panner.pan.setTargetAtTime(mixer.pan(name), now, 0.008);
    }
  }
}

/**
 * The part of a song from a frame on within one piece; after a loop's end follows its start.
 * Returns null after the end of the song.
 */
function spanAt(song, frame, loop) {
  const inLoop = loop !== null && frame < loop.end;
  const end = inLoop ? loop.end : song.length;
  if (frame >= end) return null;
  const piece = Math.floor(frame / song.piece);
  const frames = Math.min(end, (piece + 1) * song.piece) - frame;
  const next = inLoop && frame + frames === loop.end ? loop.start : frame + frames;
  return { piece, offset: frame - piece * song.piece, frames, next };
}

class Deck {
  /**
   * @param {object} route context, pieces, mixer, stretcher (or null) and output
   * @param {object} place model, from (frame), loop ({start, end} in frames, or null), speed
   * @param {number} startTime when the first frame is audible, in the context's time
   */
  constructor(route, place, startTime) {
    Object.assign(this, route, place, { startTime });
    this.rate = this.pieces.song.sampleRate;
    this.strips = new Strips(this.context, this.pieces.song.models[this.model].stems, this.mixer);
    this.fade = new GainNode(this.context, { gain: this.from > 0 ? 0 : 1 });
    this.strips.bus.connect(this.stretcher?.node ?? this.fade);
    this.stretcher?.node.connect(this.fade);
    this.fade.connect(this.output);
    if (this.from > 0) {
      this.fade.gain.setValueAtTime(0, startTime);
      this.fade.gain.linearRampToValueAtTime(1, startTime + FADE);
    }
    // When the first frame is played, before the latency of the stretcher.
    this.begin = startTime - (this.stretcher?.latency ?? 0);
    this.next = this.from;
    this.scheduled = 0; // frames
    this.sources = new Set();
    this.stopped = false;
    this.filling = null;
  }

  /** The frame that is audible at a time. */
  frameAt(time) {
    const { song } = this.pieces;
    let frame = this.from + Math.max(0, time - this.startTime) * this.rate * this.speed;
    if (this.loop !== null && this.from < this.loop.end && frame >= this.loop.end)
      frame = this.loop.start + ((frame - this.loop.end) % (this.loop.end - this.loop.start));
    return Math.min(frame, song.length);
  }

  /** Whether the song has ended at a time. */
  hasEndedAt(time) {
    return this.frameAt(time) >= this.pieces.song.length;
  }

  timeOf(frames) {
    return this.begin + frames / (this.rate * this.speed);
  }

  /** Schedule the next AHEAD seconds; false if a piece was decoded too late. */
  fill() {
    this.filling ??= this.fillOnce().finally(() => (this.filling = null));
    return this.filling;
  }

  async fillOnce() {
    while (!this.stopped && this.timeOf(this.scheduled) < this.context.currentTime + AHEAD) {
      const span = spanAt(this.pieces.song, this.next, this.loop);
      if (span === null) return true;
      const buffers = await this.pieces.get(this.model, span.piece);
      if (this.stopped) return true;
      if (this.timeOf(this.scheduled) < this.context.currentTime) return false;
      buffers.forEach((buffer, stem) => this.schedule(buffer, stem, span));
      this.scheduled += span.frames;
      this.next = span.next;
    }
    return true;
  }

  schedule(buffer, stem, span) {
    const options = { buffer, playbackRate: this.speed };
    const source = new AudioBufferSourceNode(this.context, options);
    source.connect(this.strips.strips[stem].gain);
    source.onended = () => {
      source.disconnect();
      this.sources.delete(source);
    };
    this.sources.add(source);
    source.start(this.timeOf(this.scheduled), span.offset / this.rate, span.frames / this.rate);
  }

  /** Fade out at a time, then release all nodes. */
  stop(time) {
    this.stopped = true;
    this.fade.gain.cancelScheduledValues(time);
    this.fade.gain.setValueAtTime(1, time);
    this.fade.gain.linearRampToValueAtTime(0, time + FADE);
    for (const source of this.sources) source.stop(time + FADE);
    const wait = Math.max(0, time + FADE - this.context.currentTime) + 0.05;
    setTimeout(() => this.release(), 1000 * wait);
  }

  release() {
    this.strips.bus.disconnect();
    this.fade.disconnect();
    this.stretcher?.free();
  }
}
