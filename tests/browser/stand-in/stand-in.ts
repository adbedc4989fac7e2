import type { Place } from '../house/house'
export class StandIn {
  static async start(_place: Place): Promise<StandIn> { throw new Error('not yet') }
  async identity(_email: string): Promise<{ id: string; traits: Record<string, string> } | undefined> { return undefined }
  async stop(): Promise<void> {}
}
