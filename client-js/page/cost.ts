/** What a reply cost, by the prices that the server tells. */

const KINDS = ["input", "output", "cacheRead", "cacheWrite"] as const;

type Kind = (typeof KINDS)[number];

/** By model, of a million tokens; a name that ends with `*` stands for all models that begin so. */
export interface Prices {
  readonly currency: string;
  readonly models: Readonly<Record<string, Readonly<Record<Kind, number>>>>;
}

/** In the currency of `prices`; null if the model has none. */
export function costOf(
  model: string | null,
  usage: Readonly<Partial<Record<Kind, number>>> | null | undefined,
  prices: Prices | null,
): number | null {
  const price = model === null || !prices ? undefined : priceOf(model, prices.models);
  if (!usage || !price) return null;
  return KINDS.reduce((sum, kind) => sum + (usage[kind] ?? 0) * price[kind], 0) / 1_000_000;
}

/** The exact name first, then the longest pattern. */
function priceOf(model: string, models: Prices["models"]): Prices["models"][string] | undefined {
  if (Object.hasOwn(models, model)) return models[model];
  const patterns = Object.keys(models).filter(
    (name) => name.endsWith("*") && model.startsWith(name.slice(0, -1)),
  );
  const [longest] = patterns.sort((one, other) => other.length - one.length);
  return longest === undefined ? undefined : models[longest];
}

/** Such as `$0.0123`: two digits that count, and never less than two decimals. Empty for null. */
export function money(amount: number | null, currency: string): string {
  if (amount === null) return "";
  const digits = amount === 0 ? 2 : Math.max(2, 1 - Math.floor(Math.log10(amount)));
  try {
    return amount.toLocaleString("en", {
      ...{ style: "currency", currency },
      ...{ minimumFractionDigits: 2, maximumFractionDigits: Math.min(digits, 8) },
    });
  } catch {
    return `${amount.toFixed(Math.min(digits, 8))} ${currency}`; // not a code of three letters
  }
}
