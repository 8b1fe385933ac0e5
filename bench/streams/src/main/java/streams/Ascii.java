package streams;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** Growable buffer of ASCII text: keeps string building off the hot path. Not thread safe. */
final class Ascii {
    private byte[] bytes = new byte[256];
    private int length;

    static byte[] of(String text) { return text.getBytes(StandardCharsets.ISO_8859_1); }

    Ascii reset() { length = 0; return this; }

    Ascii put(byte[] text) {
        reserve(text.length);
        System.arraycopy(text, 0, bytes, length, text.length);
        length += text.length;
        return this;
    }

    Ascii put(char character) {
        reserve(1);
        bytes[length++] = (byte) character;
        return this;
    }

    Ascii put(long number) {
        if (number == Long.MIN_VALUE) return put(of(Long.toString(number)));
        reserve(20);
        if (number < 0) {
            bytes[length++] = '-';
            number = -number;
        }
        int digits = 1;
        for (long rest = number; rest >= 10; rest /= 10) digits++;
        for (int i = length + digits - 1; i >= length; i--) {
            bytes[i] = (byte) ('0' + number % 10);
            number /= 10;
        }
        length += digits;
        return this;
    }

    byte[] bytes() { return Arrays.copyOf(bytes, length); }

    private void reserve(int more) {
        if (length + more > bytes.length) bytes = Arrays.copyOf(bytes, Math.max(bytes.length * 2, length + more));
    }
}
