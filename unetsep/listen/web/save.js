"use strict";
// Saving the mix: rendered in parts, so that two hours need as little memory as some minutes.

/** The header of a wav file of 16 bits. */
function wavHeader(frames, channels, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  const bytes = frames * channels * 2;
  text(0, "RIFF");
  view.setUint32(4, HEADER + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, channels, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * channels * 2, true);
  view.setUint16(32, channels * 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  return view.buffer;
}

const HEADER = 36; // bytes of the header that the size of the file includes
const MOST_BYTES = 2 ** 32 - 1 - HEADER; // of audio: the header counts bytes in 32 bits

/** Two channels as interleaved 16 bit samples, clipped to full scale. */
function toInt16(buffer, gain) {
  const [left, right] = [buffer.getChannelData(0), buffer.getChannelData(1)];
  const out = new Int16Array(2 * buffer.length);
  const quantize = (x) => Math.max(-32768, Math.min(32767, Math.round(x * gain * 32768)));
  for (let i = 0; i < buffer.length; i++) {
    out[2 * i] = quantize(left[i]);
    out[2 * i + 1] = quantize(right[i]);
  }
  return out;
}

function peakOf(buffer) {
  let peak = 0;
  for (let c = 0; c < 2; c++)
    for (const x of buffer.getChannelData(c)) if (Math.abs(x) > peak) peak = Math.abs(x);
  return peak;
}

/** Mix one span of a song with the settings of the mixer. */
async function renderSpan(pieces, mixer, model, span) {
  const { song } = pieces;
  const context = new OfflineAudioContext(2, span.frames, song.sampleRate);
  const strips = new Strips(context, song.models[model].stems, mixer);
  strips.bus.connect(context.destination);
  const buffers = await pieces.get(model, span.piece);
  buffers.forEach((buffer, stem) => {
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(strips.strips[stem].gain);
    source.start(0, span.offset / song.sampleRate, span.frames / song.sampleRate);
  });
  return context.startRendering();
}

/** The song from one frame to another, as spans within one piece each. */
function spansOf(song, start, end) {
  const spans = [];
  for (let frame = start; frame < end; frame += spans.at(-1).frames) {
    const span = spanAt(song, frame, null);
    spans.push({ ...span, frames: Math.min(span.frames, end - frame) });
  }
  return spans;
}

/** The mix at the song's own speed and pitch, a span at a time. */
async function* renderPlain({ pieces, mixer, model }, start, end) {
  for (const span of spansOf(pieces.song, start, end)) yield renderSpan(pieces, mixer, model, span);
}

// A stretcher has a memory, so each renders as long a part as possible. Five minutes of output take
// 100 MB; the parts of longer songs are joined by a fade. A stretcher needs a second to warm up.
// All are whole numbers of frames of the song at any speed of the page.
const STRETCHED = { seconds: 300, warm: 1, fade: 0.1 };

/** The mix at another speed or pitch, a few minutes at a time. */
async function* renderStretched(settings, start, end) {
  const { pieces, speed } = settings;
  const step = (seconds) => 20 * Math.round((seconds * pieces.song.sampleRate) / 20);
  const [longest, warm, fade] = [STRETCHED.seconds, STRETCHED.warm, STRETCHED.fade].map(step);
  const frames = Math.round((end - start) / speed);
  let tail = null; // what the next part fades in over
  for (let from = 0; from < frames; from += longest) {
    const last = from + longest >= frames;
    const to = last ? frames : from + longest + fade;
    const lead = Math.min(warm, from);
    const first = start + Math.round((from - lead) * speed);
    const part = await stretch(settings, first, end, lead, to - from);
    if (tail !== null) fadeOver(part, tail);
    tail = last ? null : cut(part, longest, fade);
    yield last ? part : cut(part, 0, longest);
  }
}

/**
 * Frames of a mix from a frame of the song on, after those that warm the stretcher up. Firefox
 * cannot suspend rendering, so all input must exist before: as a mix it needs the least memory.
 */
async function stretch(settings, first, end, warm, frames) {
  const { pieces, speed, semitones } = settings;
  const rate = pieces.song.sampleRate;
  // The latency of a stretcher is less than a second.
  const context = new OfflineAudioContext(2, rate + warm + frames, rate);
  const stretcher = await Stretcher.create(context);
  await stretcher.use(semitones - 12 * Math.log2(speed));
  stretcher.node.connect(context.destination);
  const until = Math.min(end, first + Math.ceil((rate + warm + frames) * speed));
  const mixed = [];
  let position = 0;
  for await (const buffer of renderPlain(settings, first, until)) {
    const source = new AudioBufferSourceNode(context, { buffer, playbackRate: speed });
    source.connect(stretcher.node);
    source.start(position / (rate * speed));
    position += buffer.length;
    mixed.push(buffer);
  }
  const output = await context.startRendering();
  mixed.forEach(release);
  return cut(output, Math.round(stretcher.latency * rate) + warm, frames);
}

/** A part of a buffer as a new buffer. */
function cut(buffer, from, length) {
  const { numberOfChannels, sampleRate } = buffer;
  const part = new AudioBuffer({ numberOfChannels, length, sampleRate });
  for (let c = 0; c < numberOfChannels; c++)
    part.copyToChannel(buffer.getChannelData(c).subarray(from, from + length), c);
  return part;
}

/** Fade from the end of one part to the beginning of the next. */
function fadeOver(part, tail) {
  for (let c = 0; c < part.numberOfChannels; c++) {
    const [into, old] = [part.getChannelData(c), tail.getChannelData(c)];
    for (let i = 0; i < Math.min(old.length, into.length); i++)
      into[i] = old[i] + ((into[i] - old[i]) * i) / old.length;
  }
}

/** The mix as 16 bits: frames, peak, and parts as blobs, which the browser may store on disk. */
async function gather(buffers, gain, progress) {
  const out = { frames: 0, peak: 0, parts: [] };
  progress(0); // the first part may take half a minute
  for await (const buffer of buffers) {
    out.peak = Math.max(out.peak, gain * peakOf(buffer));
    out.parts.push(new Blob([toInt16(buffer, gain)]));
    out.frames += buffer.length;
    release(buffer);
    progress(out.frames);
  }
  return out;
}

/**
 * The mix of the song, or of its loop, at the current speed and pitch, as a wav file. A mix above
 * full scale is rendered again at a lower level.
 */
async function renderMix(engine, progress) {
  // Copies of the current settings: later changes do not affect the file.
  const { pieces, mixer, model, song, volume, speed, semitones } = engine;
  const settings = { pieces, mixer: mixer.copy(), model, speed, semitones };
  const loop = engine.looping ? engine.loop : null;
  const [start, end] = loop === null ? [0, song.length] : [loop.start, loop.end];
  const plain = speed === 1 && semitones === 0;
  const render = () => (plain ? renderPlain : renderStretched)(settings, start, end);
  const total = (end - start) / speed;
  const most = MOST_BYTES / 4 / song.sampleRate / 60; // minutes of two channels of 16 bits
  if (total / song.sampleRate / 60 > most)
    throw new Error(
      `A wav file holds at most ${Math.floor(most)} minutes of this mix: loop a part, and save that`,
    );
  let out = await gather(render(), volume, (frames) => progress(frames / total));
  if (out.peak > 1)
    out = await gather(render(), volume / out.peak, (frames) => progress(frames / total));
  return new Blob([wavHeader(out.frames, 2, song.sampleRate), ...out.parts], { type: "audio/wav" });
}
