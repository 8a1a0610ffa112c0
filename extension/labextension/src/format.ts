/** Figures as people read them. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** Bytes with a binary unit and at most three digits: 38.4 MiB, 640 MiB. */
export function formatBytes(bytes: number): string {
  const power = Math.min(
    Math.max(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), 0),
    UNITS.length - 1
  );
  return `${shorten(bytes / 1024 ** power)} ${UNITS[power] ?? ''}`;
}

/** A rate with at most three digits: 0, 7.4, 152. */
export function formatRate(perSecond: number): string {
  return shorten(perSecond);
}

/** Seconds, in milliseconds. */
export function formatMilliseconds(seconds: number): string {
  return `${shorten(1000 * seconds)} ms`;
}

/** A number of tokens: 512, 4K, 128K. */
export function formatTokens(tokens: number): string {
  return tokens >= 1024 && tokens % 1024 === 0 ? `${tokens / 1024}K` : tokens.toLocaleString();
}

/** A part of a whole: 0.345 is 35 %. */
export function formatPercent(part: number): string {
  return part.toLocaleString(undefined, { style: 'percent' });
}

function shorten(value: number): string {
  const digits = value === 0 || value >= 100 ? 0 : 1;
  return value.toLocaleString(undefined, { maximumFractionDigits: digits });
}
