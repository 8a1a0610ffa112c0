import type { Event } from '@jupyterlab/services';
import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { Signal, type ISignal } from '@lumino/signaling';

import type { IInfo, ILaunchRequest, IModel, IRegistration } from './api.js';
import type { Client } from './client.js';
import { ApiError, messageOf } from './errors.js';

/** Emitted by the server whenever a model or the cluster changes its state. */
const EVENT_SCHEMA = 'https://jupyter-xinfer.dev/events/model-state';

/** How often rates are read while the panel is visible, in milliseconds. */
const INTERVAL = 2000;

/** How many readings of a model's rate are kept. */
const HISTORY = 60;

/** What the panel shows. A new object for every change, so that identity tells whether there was one. */
export interface ISnapshot {
  /** `missing`: this Jupyter server runs without the server extension. */
  connection: 'connecting' | 'online' | 'offline' | 'missing';
  /** Why the server cannot be read; empty when it can. */
  problem: string;
  models: readonly IModel[];
  info: IInfo | null;
  registrations: readonly IRegistration[];
  /** Tokens per second of each model, by uid, oldest reading first. */
  rates: ReadonlyMap<string, readonly number[]>;
}

/** The state behind the panel: what the server last said, kept up to date while somebody looks. */
export class PanelModel implements IDisposable {
  constructor(
    readonly client: Client,
    private readonly _events: Event.Stream
  ) {
    this._poll = new Poll<void>({
      auto: false,
      factory: async () => {
        await this.refresh();
        if (this._snapshot.connection !== 'online') {
          // The poll slows down while its readings fail.
          throw new Error(this._snapshot.problem);
        }
      },
      frequency: { interval: INTERVAL, backoff: true, max: 5 * INTERVAL },
      name: 'jupyter-xinfer:models',
      standby: 'when-hidden'
    });
    this._events.connect(this._onEvent);
    document.addEventListener('visibilitychange', this._onPageVisibility);
  }

  /** Emitted when `snapshot` is another one. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get snapshot(): ISnapshot {
    return this._snapshot;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    document.removeEventListener('visibilitychange', this._onPageVisibility);
    this._events.disconnect(this._onEvent);
    this._poll.dispose();
    Signal.clearData(this);
  }

  /** Whether anybody looks: nothing is read for a panel that is not shown. */
  setVisible(visible: boolean): void {
    this._visible = visible;
    void (visible ? this._poll.start() : this._poll.stop());
  }

  /**
   * Read the server until the snapshot is newer than this call. Never rejects: what went wrong is in the snapshot.
   *
   * However many call this at once, there is one reading at a time, and one more after it.
   */
  async refresh(): Promise<void> {
    this._stale = true;
    this._reading ??= this._readWhileStale();
    await this._reading;
  }

  /** Start a launch and return the model's uid. Rejects with the server's reason. */
  async launch(request: ILaunchRequest): Promise<string> {
    const uid = await this.client.launch(request);
    await this.refresh();
    return uid;
  }

  /** Stop a model. Rejects with the server's reason. */
  async terminate(uid: string): Promise<void> {
    try {
      await this.client.terminate(uid);
    } catch (error) {
      const isGone = error instanceof ApiError && error.status === 404;
      if (!isGone) {
        throw error;
      }
    }
    await this.refresh();
  }

  private async _readWhileStale(): Promise<void> {
    while (this._stale && !this._isDisposed) {
      this._stale = false;
      this._show(await this._read());
    }
    this._reading = null;
  }

  private _show(snapshot: ISnapshot): void {
    if (!this._isDisposed) {
      this._snapshot = snapshot;
      this._changed.emit();
    }
  }

  private async _read(): Promise<ISnapshot> {
    const before = this._snapshot;
    try {
      const [models, info, registrations] = await Promise.all([
        this.client.models(),
        this.client.info(),
        // What can be launched is fixed while a server runs; after a lost connection it may be another server.
        before.connection === 'online' ? before.registrations : this.client.registrations()
      ]);
      const rates = this._withRates(models);
      return { connection: 'online', problem: '', models, info, registrations, rates };
    } catch (error) {
      const connection = error instanceof ApiError && error.status === 404 ? 'missing' : 'offline';
      return { ...before, connection, problem: messageOf(error) };
    }
  }

  private _withRates(models: readonly IModel[]): ISnapshot['rates'] {
    const before = this._snapshot.rates;
    const now = Date.now();
    // Events cause readings between those of the poll; the history keeps one per interval.
    const isDue = now - this._lastRates > INTERVAL / 2;
    if (isDue) {
      this._lastRates = now;
    }
    return new Map(
      models.map(model => {
        const rates = before.get(model.id) ?? [];
        return [
          model.id,
          isDue || rates.length === 0 ? [...rates, model.tokens_per_second].slice(-HISTORY) : rates
        ];
      })
    );
  }

  private readonly _onEvent = (_: Event.IManager, emission: Event.Emission): void => {
    if (emission.schema_id === EVENT_SCHEMA && this._visible) {
      void this.refresh();
    }
  };

  private readonly _onPageVisibility = (): void => {
    if (!document.hidden && this._visible) {
      void this.refresh();
    }
  };

  private readonly _changed = new Signal<this, void>(this);
  private readonly _poll: Poll<void>;
  private _isDisposed = false;
  private _lastRates = 0;
  private _reading: Promise<void> | null = null;
  private _snapshot: ISnapshot = {
    connection: 'connecting',
    problem: '',
    models: [],
    info: null,
    registrations: [],
    rates: new Map()
  };
  private _stale = false;
  private _visible = false;
}
