// Colours of the points, for light and dark pages.

// OKLab to sRGB: B. Ottosson, 2020, "A perceptual color space for image processing". Equal steps of
// lightness look equal, so a scale that is linear in it is perceptually uniform.
function rgb(lightness, chroma, hue) {
  const angle = (hue * Math.PI) / 180;
  const a = chroma * Math.cos(angle);
  const b = chroma * Math.sin(angle);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((part) => {
    const clipped = Math.min(1, Math.max(0, part));
    const gamma = clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * clipped ** (1 / 2.4) - 0.055;
    return Math.round(255 * gamma);
  });
}

const dark = matchMedia("(prefers-color-scheme: dark)");
export const onThemeChange = (listener) => dark.addEventListener("change", listener);

// From violet over blue and green to yellow; t from 0 to 1.
function shade(t) {
  const [from, to] = dark.matches ? [0.46, 0.93] : [0.34, 0.83];
  return rgb(from + t * (to - from), 0.125 + 0.03 * t, 300 - 195 * t);
}

export const STEPS = 254;
export const MISSING = 255;

// The 256 colours of a scale, RGBA: 254 steps, one spare, and grey for what is missing. On a dark
// page the far end is the one that stands out, so `low` turns the scale where low values matter.
export function scale(alpha, low = false) {
  const palette = new Uint8Array(1024);
  for (let i = 0; i <= STEPS; i++) {
    const t = i / STEPS;
    palette.set([...shade(low && dark.matches ? 1 - t : t), alpha], 4 * i);
  }
  return withMissing(palette, alpha);
}

// Hues far apart at two lightnesses in turn, so that colours differ for every kind of colour vision.
const HUES = [250, 50, 155, 350, 100, 305];
export const MOST_LEVELS = 2 * HUES.length;

export function levels(count, rest, alpha, hidden) {
  const palette = new Uint8Array(1024);
  for (let i = 0; i < count; i++) {
    const second = i >= HUES.length;
    const lightness = (dark.matches ? 0.7 : 0.6) + (second ? (dark.matches ? 0.18 : -0.18) : 0);
    const colour = i === rest ? grey() : rgb(lightness, second ? 0.09 : 0.15, HUES[i % HUES.length]);
    palette.set([...colour, hidden.has(i) ? 0 : alpha], 4 * i);
  }
  return withMissing(palette, hidden.has(MISSING) ? 0 : alpha);
}

// Normal rows quiet, anomalies not: Okabe and Ito, 2008, "Color Universal Design".
export function labels(alpha, hidden) {
  const palette = new Uint8Array(1024);
  palette.set([213, 94, 0, hidden.has(0) ? 0 : 255], 0);
  palette.set([...(dark.matches ? [86, 180, 233] : [0, 114, 178]), hidden.has(1) ? 0 : alpha], 4);
  return withMissing(palette, alpha);
}

const grey = () => (dark.matches ? [150, 158, 166] : [140, 146, 153]);

function withMissing(palette, alpha) {
  palette.set([...grey(), alpha >> 1], 4 * MISSING);
  return palette;
}

export const css = (palette, i) =>
  `rgb(${palette[4 * i]}, ${palette[4 * i + 1]}, ${palette[4 * i + 2]})`;

// The range that colours spread over: all but the outermost fiftieth, so that a few far values do not
// take the colours from the others; or from `start` on.
export function range(values, start) {
  const step = Math.max(1, Math.floor(values.length / 20_000));
  const seen = [];
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) seen.push(values[i]);
  if (!seen.length) return [0, 1];
  const sorted = Float64Array.from(seen).sort();
  const at = (q) => sorted[Math.round(q * (sorted.length - 1))];
  let [low, high] = [start < at(0.9) ? Math.max(start, sorted[0]) : at(0.02), at(0.98)];
  if (low === high) [low, high] = [sorted[0], sorted[sorted.length - 1]];
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

export function onScale(values, [low, high]) {
  const shades = new Uint8Array(values.length);
  const factor = STEPS / (high - low);
  for (let i = 0; i < values.length; i++) {
    const place = (values[i] - low) * factor;
    shades[i] = place !== place ? MISSING : place < 0 ? 0 : place > STEPS ? STEPS : place + 0.5;
  }
  return shades;
}

export function byLevel(values) {
  const shades = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) shades[i] = values[i] === values[i] ? values[i] : MISSING;
  return shades;
}
