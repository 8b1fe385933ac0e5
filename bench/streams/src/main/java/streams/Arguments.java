package streams;

import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Flags of the form "--name value"; an unknown one is an error. */
final class Arguments {
    private final Map<String, String> values = new HashMap<>();

    Arguments(String[] words, List<String> known) {
        for (int i = 0; i + 1 < words.length; i += 2) {
            String name = words[i].startsWith("--") ? words[i].substring(2) : "";
            if (!known.contains(name)) throw new IllegalArgumentException("unknown flag " + words[i] + "; known: " + known);
            values.put(name, words[i + 1]);
        }
        if (words.length % 2 != 0) throw new IllegalArgumentException("a flag without a value: " + words[words.length - 1]);
    }

    String required(String name) {
        String value = values.get(name);
        if (value == null) throw new IllegalArgumentException("--" + name + " is missing");
        return value;
    }

    String text(String name, String otherwise) { return values.getOrDefault(name, otherwise); }

    int number(String name, int otherwise) {
        String value = values.get(name);
        return value == null ? otherwise : Integer.parseInt(value);
    }
}
