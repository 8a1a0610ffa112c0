import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { IInfo, ILaunchRequest, IModel, IRegistration } from './api.js';
import { ApiError } from './errors.js';

/** The server's routes: the only place that knows their addresses. */
export class Client {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  async models(): Promise<IModel[]> {
    const list = await this._request<{ data: IModel[] }>('GET', ['v1', 'models']);
    return list.data;
  }

  async info(): Promise<IInfo> {
    return this._request<IInfo>('GET', ['xinfer', 'info']);
  }

  async registrations(): Promise<IRegistration[]> {
    return this._request<IRegistration[]>('GET', ['v1', 'model_registrations', 'LLM']);
  }

  /** Start a launch and return the model's uid; how it goes on is read from `models`. */
  async launch(request: ILaunchRequest): Promise<string> {
    const started = await this._request<{ model_uid: string }>(
      'POST',
      ['v1', 'models'],
      '?wait_ready=false',
      request
    );
    return started.model_uid;
  }

  async terminate(uid: string): Promise<void> {
    await this._request('DELETE', ['v1', 'models', uid]);
  }

  /** The address of a path on this server, or null when it leads to another one. */
  pageUrl(path: string): string | null {
    const base = new URL(this._settings.baseUrl, window.location.href);
    const url = new URL(path, base);
    return url.origin === base.origin ? url.href : null;
  }

  private async _request<T>(
    method: string,
    path: string[],
    query = '',
    body?: ILaunchRequest
  ): Promise<T> {
    const url = URLExt.join(this._settings.baseUrl, ...path.map(encodeURIComponent)) + query;
    const init: RequestInit = { method };
    if (body) {
      init.body = JSON.stringify(body);
    }
    const response = await ServerConnection.makeRequest(url, init, this._settings);
    if (!response.ok) {
      throw new ApiError(response.status, await errorMessage(response));
    }
    return (await response.json()) as T;
  }
}

async function errorMessage(response: Response): Promise<string> {
  const fallback = `${response.status} ${response.statusText}`.trim();
  const text = await response.text();
  try {
    const body = JSON.parse(text) as { error?: { message?: string }; message?: string } | null;
    return body?.error?.message ?? body?.message ?? fallback;
  } catch {
    // A proxy in front of the server answers in HTML.
    return fallback;
  }
}
