"use strict";
// Saving the mix: rendered piece by piece, so that two hours need no more memory than a minute.

/** The header of a wav file of 16 bits. */
function wavHeader(frames, channels, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  const bytes = frames * channels * 2;
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
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

/** Two channels as interleaved 16 bit samples; what exceeds full scale is limited to it. */
function toInt16(buffer, gain) {
  const [left, right] = [buffer.getChannelData(0), buffer.getChannelData(1)];
  const out = new Int16Array(2 * buffer.length);
  const whole = (x) => Math.max(-32768, Math.min(32767, Math.round(x * gain * 32768)));
  for (let i = 0; i < buffer.length; i++) {
    out[2 * i] = whole(left[i]);
    out[2 * i + 1] = whole(right[i]);
  }
  return out;
}

function peakOf(buffer) {
  let peak = 0;
  for (let c = 0; c < 2; c++)
    for (const x of buffer.getChannelData(c)) if (Math.abs(x) > peak) peak = Math.abs(x);
  return peak;
}

/** Mix one span of a song as the mixer says. */
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

/**
 * The mix of the song, or of its loop, as a wav file. A mix above full scale is lowered as a
 * whole: its peak is measured first.
 */
async function renderMix(engine, progress) {
  const { pieces, mixer, model, song, volume } = engine;
  const loop = engine.looping ? engine.loop : null;
  const [start, end] = loop === null ? [0, song.length] : [loop.start, loop.end];
  const spans = [];
  for (let frame = start; frame < end; frame += spans.at(-1).frames) {
    const span = spanAt(song, frame, null);
    spans.push({ ...span, frames: Math.min(span.frames, end - frame) });
  }
  let peak = 0;
  for (const [i, span] of spans.entries()) {
    peak = Math.max(peak, volume * peakOf(await renderSpan(pieces, mixer, model, span)));
    progress((0.5 * (i + 1)) / spans.length);
  }
  const gain = volume / Math.max(1, peak);
  const parts = [wavHeader(end - start, 2, song.sampleRate)];
  for (const [i, span] of spans.entries()) {
    const samples = toInt16(await renderSpan(pieces, mixer, model, span), gain);
    parts.push(new Blob([samples])); // a Blob may leave memory, an array may not
    progress(0.5 + (0.5 * (i + 1)) / spans.length);
  }
  return new Blob(parts, { type: "audio/wav" });
}
