package stack;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.errors.RetriableException;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.storage.Converter;

/**
 * JSON behind the id of a JSON schema in a registry with the Confluent-compatible API: the wire format of Confluent's
 * converter of this name, which no public Maven repository has, and with the schemas it makes (titles, connect.type,
 * connect.parameters, oneOf for what is optional). Subjects are named after topic and record (TopicRecordNameStrategy),
 * because one subject holds schemas of one type. For the tests only. Settings: schema.registry.url, decimal.format,
 * schema.registry.ssl.truststore.location (certificates in PEM).
 */
public final class JsonSchemaConverter implements Converter {
    private final ObjectMapper mapper = new ObjectMapper();
    private final JsonConverter json = new JsonConverter();
    private final Map<Schema, Integer> ids = new ConcurrentHashMap<>();
    private HttpClient http;
    private String registry;
    private boolean numeric;

    @Override
    public void configure(Map<String, ?> configs, boolean isKey) {
        registry = String.valueOf(configs.get("schema.registry.url"));
        numeric = "NUMERIC".equalsIgnoreCase(String.valueOf(configs.get("decimal.format")));
        Map<String, Object> inner = new HashMap<>(configs);
        inner.put("schemas.enable", false);
        json.configure(inner, isKey);
        HttpClient.Builder client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5));
        Object authorities = configs.get("schema.registry.ssl.truststore.location");
        if (authorities != null) {
            client.sslContext(trusting(Path.of(authorities.toString())));
        }
        http = client.build();
    }

    private static SSLContext trusting(Path authorities) {
        try (InputStream pem = Files.newInputStream(authorities)) {
            KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
            store.load(null, null);
            for (Certificate certificate : CertificateFactory.getInstance("X.509").generateCertificates(pem)) {
                store.setCertificateEntry("authority-" + store.size(), certificate);
            }
            TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            trust.init(store);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(null, trust.getTrustManagers(), null);
            return context;
        } catch (IOException | GeneralSecurityException error) {
            throw new ConfigException("schema.registry.ssl.truststore.location", authorities, error.toString());
        }
    }

    @Override
    public byte[] fromConnectData(String topic, Schema schema, Object value) {
        if (value == null) {
            return null;
        }
        Integer id = ids.get(schema);
        if (id == null) {
            id = register(topic + "-" + schema.name(), describe(schema));
            ids.put(schema, id);
        }
        byte[] payload = json.fromConnectData(topic, schema, value);
        return ByteBuffer.allocate(5 + payload.length).put((byte) 0).putInt(id).put(payload).array();
    }

    @Override
    public SchemaAndValue toConnectData(String topic, byte[] value) {
        throw new DataException("this converter only writes");
    }

    private int register(String subject, JsonNode schema) {
        ObjectNode body = mapper.createObjectNode().put("schemaType", "JSON").put("schema", schema.toString());
        HttpRequest request = HttpRequest.newBuilder(URI.create(registry + "/subjects/" + subject + "/versions"))
            .timeout(Duration.ofSeconds(10))
            .header("Content-Type", "application/vnd.schemaregistry.v1+json")
            .POST(HttpRequest.BodyPublishers.ofString(body.toString()))
            .build();
        try {
            HttpResponse<String> answer = http.send(request, HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200) {
                throw new RetriableException("the registry answers " + answer.statusCode() + ": " + answer.body());
            }
            return mapper.readTree(answer.body()).get("id").intValue();
        } catch (IOException error) {
            throw new RetriableException("the registry does not answer", error);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new RetriableException("interrupted", error);
        }
    }

    private ObjectNode describe(Schema schema) {
        ObjectNode described = described(schema);
        if (schema.name() != null) {
            described.put("title", schema.name());
        }
        if (schema.parameters() != null) {
            ObjectNode parameters = described.putObject("connect.parameters");
            schema.parameters().forEach(parameters::put);
        }
        if (!schema.isOptional()) {
            return described;
        }
        ObjectNode optional = mapper.createObjectNode();
        optional.putArray("oneOf").add(mapper.createObjectNode().put("type", "null")).add(described);
        return optional;
    }

    private ObjectNode described(Schema schema) {
        ObjectNode described = JsonNodeFactory.instance.objectNode();
        switch (schema.type()) {
            case STRUCT -> {
                described.put("type", "object");
                ObjectNode properties = described.putObject("properties");
                for (Field field : schema.fields()) {
                    properties.set(field.name(), describe(field.schema()).put("connect.index", field.index()));
                }
            }
            case ARRAY -> described.put("type", "array").set("items", describe(schema.valueSchema()));
            case MAP -> described.put("type", "object").set("additionalProperties", describe(schema.valueSchema()));
            case INT8, INT16, INT32, INT64 ->
                described.put("type", "integer").put("connect.type", schema.type().getName());
            case FLOAT32, FLOAT64 -> described.put("type", "number").put("connect.type", schema.type().getName());
            case BOOLEAN -> described.put("type", "boolean");
            case STRING -> described.put("type", "string");
            case BYTES -> {
                boolean number = numeric && "org.apache.kafka.connect.data.Decimal".equals(schema.name());
                described.put("type", number ? "number" : "string").put("connect.type", "bytes");
            }
            default -> throw new DataException("no JSON schema for " + schema.type());
        }
        return described;
    }
}
