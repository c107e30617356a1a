/** Files that go along with a message: checked against the server's limits before they are sent. */

export interface AttachmentLimits {
  readonly max: number;
  /** Of one file. */
  readonly max_bytes: number;
  readonly media_types: readonly string[];
}

export interface Attachment {
  readonly id: number;
  readonly title: string;
  readonly media_type: string;
  readonly bytes: number;
  /** Base64. */
  readonly data: string;
}

/** As `POST /api/chat/send` takes it. */
export interface SentAttachment {
  readonly type: "image" | "document";
  readonly media_type: string;
  readonly data: string;
  readonly title: string;
}

const MAX_TITLE = 200;

/** The longer side of an image that had to be made smaller, in pixels: models see no more. */
const SIDES = [1568, 1024, 640];

/** Why a file cannot go along, for people. */
export class AttachmentError extends Error {}

let lastId = 0;

/**
 * Read a file.
 *
 * @throws {AttachmentError} it is of another kind, or too large; images that are too large are made smaller first
 */
export async function attach(file: File, limits: AttachmentLimits): Promise<Attachment> {
  if (!limits.media_types.includes(file.type)) {
    throw new AttachmentError(`${file.name} is not of a kind that can be sent: ${kinds(limits)}.`);
  }
  const blob = file.size > limits.max_bytes ? await smaller(file, limits) : file;
  if (!blob) {
    const most = size(limits.max_bytes);
    throw new AttachmentError(`${file.name} has ${size(file.size)}; at most ${most} can be sent.`);
  }
  const data = await base64(blob).catch(() => {
    throw new AttachmentError(`${file.name} could not be read.`);
  });
  const title = file.name.slice(0, MAX_TITLE);
  return { id: (lastId += 1), title, media_type: blob.type, bytes: blob.size, data };
}

export const sent = ({ media_type, data, title }: Attachment): SentAttachment => ({
  type: media_type.startsWith("image/") ? "image" : "document",
  ...{ media_type, data, title },
});

/** Such as `PNG, JPEG, PDF`. */
export const kinds = ({ media_types }: AttachmentLimits): string =>
  media_types.map((type) => type.replace(/^.*\//, "").toUpperCase()).join(", ");

/** Such as `512 KB`. */
export function size(bytes: number): string {
  if (bytes < 1024) return `${String(bytes)} bytes`;
  const kilo = bytes / 1024;
  return kilo < 1000 ? `${String(Math.round(kilo))} KB` : `${(kilo / 1024).toFixed(1)} MB`;
}

/** The image in fewer pixels; null if that does not help, or it is none. */
async function smaller(
  file: File,
  { max_bytes, media_types }: AttachmentLimits,
): Promise<Blob | null> {
  if (!file.type.startsWith("image/") || !media_types.includes("image/jpeg")) return null;
  const image = await createImageBitmap(file).catch(() => null);
  if (!image) return null;
  for (const side of SIDES) {
    const scale = Math.min(1, side / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise<Blob | null>((resolve) => {
      canvas.toBlob(resolve, "image/jpeg", 0.82);
    });
    if (blob && blob.size <= max_bytes) return blob;
  }
  return null;
}

function base64(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => {
      resolve((reader.result as string).replace(/^[^,]*,/, ""));
    };
    reader.onerror = () => {
      reject(new Error("unreadable"));
    };
    reader.readAsDataURL(blob);
  });
}
