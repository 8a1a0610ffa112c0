import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

import { ApiError } from '../../extension/labextension/lib/errors.js';
import { PanelModel } from '../../extension/labextension/lib/model.js';

const SCHEMA = 'https://jupyter-xinfer.dev/events/model-state';
const running = rate => ({ id: 'demo', state: 'ready', tokens_per_second: rate });

/** A server whose answers a test sets, and which counts how often it is asked. */
class FakeClient {
  answer = [];
  asked = { models: 0, registrations: 0 };
  failure = null;
  gate = Promise.resolve();

  async models() {
    this.asked.models += 1;
    await this.gate;
    if (this.failure) {
      throw this.failure;
    }
    return this.answer;
  }

  async info() {
    return { version: '0', cluster: { state: 'running' }, dashboard: null };
  }

  async registrations() {
    this.asked.registrations += 1;
    return [{ model_name: 'demo' }];
  }

  async terminate() {
    throw this.failure;
  }
}

/** The part of an event stream that the model uses. */
class FakeEvents {
  listeners = new Set();
  connect = listener => this.listeners.add(listener);
  disconnect = listener => this.listeners.delete(listener);
  emit = schema => this.listeners.forEach(listener => listener(null, { schema_id: schema }));
}

let client;
let events;
let model;

beforeEach(() => {
  globalThis.document = Object.assign(new EventTarget(), { hidden: false });
  client = new FakeClient();
  events = new FakeEvents();
  model = new PanelModel(client, events);
});

afterEach(() => model.dispose());

/** The next change of the snapshot. */
const nextChange = () =>
  new Promise(resolve => {
    const listener = () => {
      model.changed.disconnect(listener);
      resolve();
    };
    model.changed.connect(listener);
  });

test('a reading brings models, cluster and what can be launched', async () => {
  client.answer = [running(5)];
  await model.refresh();
  assert.equal(model.snapshot.connection, 'online');
  assert.deepEqual(model.snapshot.models, [running(5)]);
  assert.equal(model.snapshot.info.cluster.state, 'running');
  assert.equal(model.snapshot.registrations[0].model_name, 'demo');
});

test('calls during a reading cause one more, and wait for it', async () => {
  let open;
  client.gate = new Promise(resolve => (open = resolve));
  const calls = [model.refresh(), model.refresh(), model.refresh()];
  client.answer = [running(1)];
  open();
  await Promise.all(calls);
  assert.equal(client.asked.models, 2);
  assert.deepEqual(model.snapshot.models, [running(1)]);
});

test('nothing is read while nobody looks', () => {
  events.emit(SCHEMA);
  document.dispatchEvent(new Event('visibilitychange'));
  assert.equal(client.asked.models, 0);
});

test('an event of ours is followed by a reading, one of others is not', async () => {
  model.setVisible(true);
  await nextChange();
  const before = client.asked.models;
  events.emit('https://events.jupyter.org/jupyter_server/contents_service/v1');
  assert.equal(client.asked.models, before);
  events.emit(SCHEMA);
  assert.equal(client.asked.models, before + 1);
});

test('a failed reading keeps what was known and says why', async () => {
  client.answer = [running(5)];
  await model.refresh();
  client.failure = new TypeError('Failed to fetch');
  await model.refresh();
  assert.equal(model.snapshot.connection, 'offline');
  assert.equal(model.snapshot.problem, 'Failed to fetch');
  assert.deepEqual(model.snapshot.models, [running(5)]);
});

test('what can be launched is read again only after a lost connection', async () => {
  await model.refresh();
  await model.refresh();
  assert.equal(client.asked.registrations, 1);
  client.failure = new TypeError('Failed to fetch');
  await model.refresh();
  client.failure = null;
  await model.refresh();
  assert.equal(client.asked.registrations, 2);
});

test('a server without the extension is told apart from one that does not answer', async () => {
  client.failure = new ApiError(404, 'Not Found');
  await model.refresh();
  assert.equal(model.snapshot.connection, 'missing');
});

test('stopping a model that is gone is no error, any other refusal is', async () => {
  client.failure = new ApiError(404, 'no such model');
  await model.terminate('demo');
  client.failure = new ApiError(403, 'not yours');
  await assert.rejects(model.terminate('demo'), /not yours/);
});

test('rates keep one reading per interval, and go with their model', async () => {
  client.answer = [running(5)];
  await model.refresh();
  client.answer = [running(7)];
  await model.refresh();
  assert.deepEqual(model.snapshot.rates.get('demo'), [5]);
  client.answer = [];
  await model.refresh();
  assert.equal(model.snapshot.rates.size, 0);
});
