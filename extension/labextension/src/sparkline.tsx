import * as React from 'react';

const WIDTH = 240;
const HEIGHT = 24;

/** A line of recent readings, scaled to the highest of them; nothing while there is nothing to see. */
export function Sparkline(props: { values: readonly number[] }): React.JSX.Element | null {
  const { values } = props;
  const highest = Math.max(...values);
  if (values.length < 2 || highest <= 0) {
    return null;
  }
  const step = WIDTH / (values.length - 1);
  const points = values.map(
    (value, index) =>
      `${(index * step).toFixed(1)},${(HEIGHT - 1 - (value / highest) * (HEIGHT - 2)).toFixed(1)}`
  );
  return (
    <svg
      className="jp-xinfer-Sparkline"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
      aria-hidden="true"
    >
      <polygon points={`0,${HEIGHT} ${points.join(' ')} ${WIDTH},${HEIGHT}`} />
      <polyline points={points.join(' ')} />
    </svg>
  );
}
