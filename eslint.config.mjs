// The player's scripts: classic ones that share a global scope, in the order of page.py's SCRIPTS.
const browser = `
  AudioBuffer AudioBufferSourceNode AudioContext AudioWorkletNode Blob ConstantSourceNode CustomEvent Event
  EventTarget GainNode OfflineAudioContext StereoPannerNode URL atob clearInterval clearTimeout
  console document fetch localStorage location matchMedia navigator requestAnimationFrame setInterval setTimeout window`;
const shared = `
  $ album unetsepData loadData bytesOf release Pieces FADE Strips spanAt Deck Mixer Stretcher Engine renderMix make
  percent setText setRange onReset DARK STRONG Lane WaveSurfer SignalsmithStretch`;
const names = `${browser} ${shared}`.trim().split(/\s+/);
// The app's page has one script.
const ofApp = `
  Error FormData XMLHttpRequest console crypto document fetch history localStorage clearTimeout setTimeout window`;
const rules = {
  eqeqeq: "error",
  "no-const-assign": "error",
  "no-dupe-class-members": "error",
  "no-undef": "error",
  "no-unreachable": "error",
  "no-var": "error",
  "prefer-const": "error",
};
const readonly = (words) => Object.fromEntries(words.map((name) => [name, "readonly"]));

export default [
  { ignores: ["**/vendor/"] },
  {
    files: ["unetsep/listen/web/*.js"],
    languageOptions: {
      sourceType: "script",
      globals: readonly(names),
    },
    // What one script declares, others use.
    rules: { ...rules, "no-unused-vars": ["error", { vars: "local" }] },
  },
  {
    files: ["unetsep/app/web/*.js"],
    languageOptions: { sourceType: "script", globals: readonly(ofApp.trim().split(/\s+/)) },
    rules: { ...rules, "no-unused-vars": "error" },
  },
];
