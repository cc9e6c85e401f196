"use strict";
// Audio and pictures are scripts beside the page: a page opened from a disk may run scripts, but
// not read files. Each script calls unetsepData once, with JSON.

const $ = (id) => document.getElementById(id);
const BUDGET = 40e6; // bytes of decoded audio in the cache
const ONLINE = location.protocol.startsWith("http"); // not a page from the disk
const AGAIN = ONLINE
  ? 'add the song to the app again, or create the page again with "unetsep listen"'
  : 'create the page again with "unetsep listen"';
const waiting = new Map(); // name -> promise of its value, with resolve and reject

function unetsepData(name, value) {
  waiting.get(name)?.resolve(value);
}

/** Run a data script; resolves in any case. */
function runData(url) {
  return new Promise((resolve) => {
    const script = document.createElement("script");
    script.onload = script.onerror = () => {
      script.remove();
      // Firefox keeps scripts that ran: these callbacks would keep all data for ever.
      script.onload = script.onerror = null;
      resolve();
    };
    script.src = url;
    document.head.append(script);
  });
}

/** Parse a data script without running it: Chromium keeps the text of all scripts that it ran. */
async function readData(url) {
  const text = await (await fetch(url)).text();
  unetsepData(...JSON.parse(`[${text.slice(text.indexOf("(") + 1, text.lastIndexOf(")"))}]`));
}

/** The value of a data script; callers at the same time share one request. */
function loadData(name, url) {
  if (!waiting.has(name)) {
    const data = {};
    data.promise = new Promise((resolve, reject) => Object.assign(data, { resolve, reject }));
    waiting.set(name, data);
    const end = (error) => {
      waiting.delete(name);
      // By the standard of fetch: no answer, or a part of one.
      const silent = error instanceof TypeError;
      const text = silent ? "The server does not answer: is it still running?" : null;
      data.reject(new Error(text ?? `${url} is missing: ${AGAIN}`)); // no effect after a value
    };
    (ONLINE ? readData(url) : runData(url)).then(end, end);
  }
  return waiting.get(name).promise;
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Free the memory of a buffer now: the garbage collector would leave hundreds of MB. */
function release(buffer) {
  for (let c = 0; c < buffer.numberOfChannels; c++) buffer.getChannelData(c).buffer.transfer?.(0);
}

/** The pieces of a song, decoded on demand; a cache holds those used last within BUDGET. */
class Pieces {
  constructor(path, key, song) {
    Object.assign(this, { path, key, song });
    this.cache = new Map(); // name -> promise of one AudioBuffer for each stem
    // At the song's own rate: without resampling, pieces join to the sample.
    this.decoder = new OfflineAudioContext(1, 1, song.sampleRate);
  }

  bytes(model) {
    const { piece, channels, models } = this.song;
    return piece * channels * 4 * models[model].stems.length;
  }

  /** AudioBuffers of all stems of a model, for one piece. */
  get(model, piece) {
    const name = `${this.key}/${model}/${piece}`;
    const buffers = this.cache.get(name) ?? this.load(name, `${this.path}/${model}/${piece}.js`);
    this.cache.delete(name); // the newest is last
    this.cache.set(name, buffers);
    // The current and the next piece, of two models while it switches.
    const least = this.song.models.length > 1 ? 4 : 2;
    this.evict(Math.max(least, Math.floor(BUDGET / this.bytes(model))));
    return buffers;
  }

  evict(most) {
    for (const [name, buffers] of this.cache) {
      if (this.cache.size <= most) return;
      this.cache.delete(name);
      buffers.then(
        (stems) => stems.forEach(release),
        () => {},
      );
    }
  }

  async load(name, url) {
    try {
      const stems = await loadData(name, url);
      return await Promise.all(stems.map((stem) => this.decode(...stem)));
    } catch (error) {
      this.cache.delete(name);
      throw error;
    }
  }

  async decode(base64, scale) {
    const buffer = await this.decoder.decodeAudioData(bytesOf(base64).buffer);
    for (let c = 0; scale !== 1 && c < buffer.numberOfChannels; c++) {
      const samples = buffer.getChannelData(c);
      for (let i = 0; i < samples.length; i++) samples[i] *= scale;
    }
    return buffer;
  }
}
