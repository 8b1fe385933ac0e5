package streams;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import org.apache.kafka.common.utils.Bytes;

import java.io.IOException;

/** Reads op, after.{good_id,operation,pcs} and source.lsn of a Debezium envelope, nothing else. Reused by one task: not thread safe. */
final class Envelope {
    private static final JsonFactory JSON = new JsonFactory();
    private static final int GOOD = 1, PCS = 2, OPERATION = 4;

    char op;
    boolean hasAfter;
    long good;
    /** Signed: add is positive, remove negative. */
    long pieces;
    /** -1 when absent. */
    long lsn;

    boolean parse(byte[] value) throws IOException {
        op = 0;
        hasAfter = false;
        lsn = -1;
        boolean sourceSeen = false, afterSeen = false;
        try (JsonParser parser = JSON.createParser(value)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) return false;
            String field;
            while ((field = parser.nextFieldName()) != null) {
                switch (field) {
                    case "after":
                        afterSeen = true;
                        if (parser.nextToken() == JsonToken.START_OBJECT && !row(parser)) return false;
                        break;
                    case "source":
                        sourceSeen = true;
                        if (parser.nextToken() == JsonToken.START_OBJECT) source(parser);
                        break;
                    case "op": {
                        String text = parser.nextTextValue();
                        if (text == null || text.length() != 1) return false;
                        op = text.charAt(0);
                        break;
                    }
                    default:
                        parser.nextToken();
                        parser.skipChildren();
                }
                if (sourceSeen && afterSeen && op != 0) break; // what follows is not needed
            }
        }
        return op != 0;
    }

    private boolean row(JsonParser parser) throws IOException {
        int found = 0, sign = 0;
        long pcs = 0;
        String field;
        while ((field = parser.nextFieldName()) != null) {
            switch (field) {
                case "good_id":
                    good = parser.nextLongValue(0);
                    if (parser.currentToken() != JsonToken.VALUE_NUMBER_INT) return false;
                    found |= GOOD;
                    break;
                case "pcs":
                    pcs = parser.nextLongValue(0);
                    if (parser.currentToken() != JsonToken.VALUE_NUMBER_INT) return false;
                    found |= PCS;
                    break;
                case "operation": {
                    String text = parser.nextTextValue();
                    if ("add".equals(text)) sign = 1;
                    else if ("remove".equals(text)) sign = -1;
                    else return false;
                    found |= OPERATION;
                    break;
                }
                default:
                    parser.nextToken();
                    parser.skipChildren();
            }
        }
        pieces = sign * pcs;
        return hasAfter = found == (GOOD | PCS | OPERATION);
    }

    private void source(JsonParser parser) throws IOException {
        String field;
        while ((field = parser.nextFieldName()) != null) {
            JsonToken token = parser.nextToken();
            if (token == JsonToken.VALUE_NUMBER_INT && field.equals("lsn")) lsn = parser.getLongValue();
            else parser.skipChildren();
        }
    }

    /** The 16 bytes of the id of a key {"id":"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"}; any other key is taken as it is. */
    static Bytes id(byte[] key) {
        if (key.length != 45 || key[2] != 'i' || key[3] != 'd' || key[6] != '"' || key[43] != '"') return Bytes.wrap(key);
        byte[] id = new byte[16];
        int at = 0, i = 7;
        while (i < 43) {
            if (key[i] == '-') {
                i++;
                continue;
            }
            int high = Character.digit(key[i], 16), low = i + 1 < 43 ? Character.digit(key[i + 1], 16) : -1;
            if ((high | low) < 0 || at == 16) return Bytes.wrap(key);
            id[at++] = (byte) (high << 4 | low);
            i += 2;
        }
        return at == 16 ? Bytes.wrap(id) : Bytes.wrap(key);
    }
}
