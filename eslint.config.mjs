// The player's scripts: classic ones that share a global scope, in the order of page.py's SCRIPTS.
const browser = `
  AudioBufferSourceNode AudioContext AudioWorkletNode Blob ConstantSourceNode CustomEvent Event
  EventTarget GainNode OfflineAudioContext StereoPannerNode URL atob clearInterval clearTimeout
  console document matchMedia requestAnimationFrame setInterval setTimeout window`;
const shared = `
  $ album unetsepData loadData bytesOf Pieces FADE Strips spanAt Deck Mixer Engine renderMix make
  percent setRange DARK Lane WaveSurfer SignalsmithStretch`;
const names = `${browser} ${shared}`.trim().split(/\s+/);

export default [
  { ignores: ["**/vendor/"] },
  {
    files: ["unetsep/listen/web/*.js"],
    languageOptions: {
      sourceType: "script",
      globals: Object.fromEntries(names.map((name) => [name, "readonly"])),
    },
    rules: {
      eqeqeq: "error",
      "no-const-assign": "error",
      "no-dupe-class-members": "error",
      "no-undef": "error",
      "no-unreachable": "error",
      "no-unused-vars": ["error", { vars: "local" }], // what one script declares, others use
      "no-var": "error",
      "prefer-const": "error",
    },
  },
];
