import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  formatBytes,
  formatMilliseconds,
  formatRate,
  formatTokens
} from '../../extension/labextension/lib/format.js';

test('bytes have a binary unit and at most three digits', () => {
  assert.equal(formatBytes(0), '0 B');
  assert.equal(formatBytes(1023), '1,023 B');
  assert.equal(formatBytes(39_845_888), '38 MiB');
  assert.equal(formatBytes(6.25 * 2 ** 30), '6.3 GiB');
  assert.equal(formatBytes(640 * 2 ** 20), '640 MiB');
  assert.equal(formatBytes(2 ** 60), '1,048,576 TiB');
});

test('rates keep a digit after the point only below a hundred', () => {
  assert.equal(formatRate(0), '0');
  assert.equal(formatRate(7.44), '7.4');
  assert.equal(formatRate(152.3), '152');
});

test('token counts are shortened only where that is exact', () => {
  assert.equal(formatTokens(512), '512');
  assert.equal(formatTokens(131072), '128K');
  assert.equal(formatTokens(2000), '2,000');
});

test('times of steps are in milliseconds', () => {
  assert.equal(formatMilliseconds(0.00274), '2.7 ms');
  assert.equal(formatMilliseconds(1.5), '1,500 ms');
});
