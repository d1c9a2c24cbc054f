import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.common.utils.Exit;

/** Runs Kafka's command-line tools: their main methods in this process, which is ten times as fast as a process each. */
final class Tools {
    static final String TOPICS = "org.apache.kafka.tools.TopicCommand";
    static final String CONFIGS = "kafka.admin.ConfigCommand";
    static final String GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    static final String SHARES = "org.apache.kafka.tools.consumer.group.ShareGroupCommand";
    static final String ALL_GROUPS = "org.apache.kafka.tools.GroupsCommand";
    static final String OFFSETS = "org.apache.kafka.tools.GetOffsetShell";
    static final String TRANSACTIONS = "org.apache.kafka.tools.TransactionsCommand";
    static final String PRODUCER = "org.apache.kafka.tools.ConsoleProducer";
    static final String CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer";

    private static final PrintStream OUT = System.out;
    private static final Switch CAPTURE = new Switch();
    private static final List<Runnable> HOOKS = new ArrayList<>();
    private static Ended first;

    private Tools() {
    }

    /** What a tool ended with. */
    record Ended(int status, String said) {
        /** The words of the only line that begins with these. */
        List<String> line(String... begins) {
            List<List<String>> found = said.lines().map(line -> Arrays.asList(line.trim().split("\\s+")))
                .filter(words -> words.size() >= begins.length
                    && words.subList(0, begins.length).equals(Arrays.asList(begins))).toList();
            assertEquals(1, found.size(), "one line with " + Arrays.toString(begins) + " in\n" + said);
            return found.get(0);
        }

        boolean has(String text) {
            return said.contains(text);
        }

        void must(String text) {
            assertTrue(said.contains(text), text + " in\n" + said);
        }

        void mustNot(String text) {
            assertFalse(said.contains(text), text + " in\n" + said);
        }

        int count(String text) {
            return (said.length() - said.replace(text, "").length()) / text.length();
        }
    }

    /** Thrown where a tool would end the process. */
    private static final class End extends Error {
        End(int status) {
            super("exit " + status, null, false, false);
        }
    }

    /** Output goes to a buffer while a tool runs; what Scala's console took at its start too. */
    private static final class Switch extends OutputStream {
        private ByteArrayOutputStream buffer;

        @Override
        public synchronized void write(int octet) {
            if (buffer == null) {
                OUT.write(octet);
            } else {
                buffer.write(octet);
            }
        }

        synchronized void begin() {
            buffer = new ByteArrayOutputStream();
        }

        synchronized String said() {
            return buffer.toString(java.nio.charset.StandardCharsets.UTF_8);
        }

        synchronized void end() {
            buffer = null;
        }
    }

    static void capture() {
        System.setOut(new PrintStream(CAPTURE, true));
        System.setErr(new PrintStream(CAPTURE, true));
        Exit.setExitProcedure(Tools::end);
        Exit.setHaltProcedure(Tools::end);
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
    }

    /** The first of them counts: tools catch this as any other error, say so and end once more. */
    private static void end(int status, String message) {
        if (first == null) {
            if (message != null) {
                System.err.println(message);
            }
            System.out.flush();
            first = new Ended(status, CAPTURE.said());
        }
        throw new End(status);
    }

    /** Runs a tool that takes --bootstrap-server, whatever its end. */
    static synchronized Ended any(String main, String... arguments) throws Exception {
        return bare(main, before(arguments, "--bootstrap-server", Support.server));
    }

    /** The same with a command that stands before the bootstrap server. */
    static Ended command(String main, String command, String... arguments) throws Exception {
        Ended ended = bare(main, before(before(arguments, "--bootstrap-server", Support.server), command));
        return good(main, ended, arguments);
    }

    static String[] before(String[] arguments, String... first) {
        String[] all = Arrays.copyOf(first, first.length + arguments.length);
        System.arraycopy(arguments, 0, all, first.length, arguments.length);
        return all;
    }

    /** Runs a tool with just these arguments. */
    static synchronized Ended bare(String main, String... arguments) throws Exception {
        HOOKS.clear();
        CAPTURE.begin();
        first = null;
        try {
            Class.forName(main).getMethod("main", String[].class).invoke(null, (Object) arguments);
            end(0, null);
        } catch (InvocationTargetException e) {
            if (first == null) {
                first = new Ended(1, CAPTURE.said() + e.getCause());
            }
        } catch (End e) {
            // The end of its main method.
        } finally {
            HOOKS.forEach(Runnable::run);
            CAPTURE.end();
        }
        return first;
    }

    private static Ended good(String main, Ended ended, String... arguments) {
        if (ended.status != 0) {
            fail(main + " " + Arrays.toString(arguments) + " ended with " + ended.status + ": "
                + Support.clip(ended.said));
        }
        // Some tools say what went wrong and end with 0 all the same.
        for (String complaint : List.of("Error:", "Exception")) {
            if (ended.said.contains(complaint)) {
                fail(main + " " + Arrays.toString(arguments) + ": " + Support.clip(ended.said));
            }
        }
        return ended;
    }

    /** Runs a tool that has to end well. */
    static Ended run(String main, String... arguments) throws Exception {
        return good(main, any(main, arguments), arguments);
    }

    /** Runs a tool that has to be refused, and say why. */
    static Ended refused(String text, String main, String... arguments) throws Exception {
        Ended ended = any(main, arguments);
        assertTrue(ended.status != 0 || ended.said.contains("Error"), "accepted:\n" + ended.said);
        ended.must(text);
        return ended;
    }

    /** Runs a tool with something on its standard input. */
    static Ended typed(String input, String main, String... arguments) throws Exception {
        InputStream before = System.in;
        System.setIn(new ByteArrayInputStream(input.getBytes()));
        try {
            return run(main, arguments);
        } finally {
            System.setIn(before);
        }
    }

    /** Runs a tool as a process of its own: those that end the process by themselves, or wait to be interrupted. */
    static Ended process(int seconds, String main, String... arguments) throws Exception {
        List<String> command = new ArrayList<>(List.of("java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", System.getProperty("java.class.path"), main,
            "--bootstrap-server", Support.server));
        command.addAll(List.of(arguments));
        File said = File.createTempFile("tool", ".out");
        Process process = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(said).start();
        try {
            if (!process.waitFor(seconds, TimeUnit.SECONDS)) {
                // What VerifiableConsumer takes for its end.
                process.destroy();
                assertTrue(process.waitFor(30, TimeUnit.SECONDS), main + " does not end");
            }
            return new Ended(process.exitValue(), Files.readString(said.toPath()));
        } finally {
            process.destroyForcibly();
            Files.delete(said.toPath());
        }
    }

    static void eventually(Callable<Boolean> question) throws Exception {
        Support.eventually(true, question);
    }

    static String file(String text) throws Exception {
        Path path = Files.createTempFile("tool", ".json");
        path.toFile().deleteOnExit();
        Files.writeString(path, text);
        return path.toString();
    }

    /** The files of a partition that the broker keeps below SUITE_DATA_DIR, by their ending. */
    static List<String> files(String partition, String ending) throws Exception {
        String folder = System.getenv("SUITE_DATA_DIR");
        assertNotEquals(null, folder, "SUITE_DATA_DIR is not set");
        try (var all = Files.walk(Path.of(folder), 6)) {
            return all.filter(path -> path.getParent().getFileName().toString().equals(partition)
                && path.toString().endsWith(ending)).map(Path::toString).sorted().toList();
        }
    }
}
