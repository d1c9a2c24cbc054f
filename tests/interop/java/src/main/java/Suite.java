import static org.junit.platform.engine.discovery.DiscoverySelectors.selectClass;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.junit.platform.engine.FilterResult;
import org.junit.platform.engine.TestDescriptor;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.support.descriptor.MethodSource;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.PostDiscoveryFilter;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/** Runs the cases: java Suite client|tools HOST:PORT. SUITE_CASES names a file with the cases to run, one a line. */
public final class Suite implements TestExecutionListener {
    private static final List<Class<?>> CLASSES = List.of(ProducerTest.class, ClassicConsumerTest.class,
        ConsumerProtocolTest.class, TransactionTest.class, AdminTest.class, GroupAdminTest.class, ShareTest.class);
    private static final List<Class<?>> TOOLS = List.of(ToolsTest.class);

    private final Map<String, Long> begun = new ConcurrentHashMap<>();
    private int passed;
    private int failed;

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 2) {
            System.err.println("usage: Suite client|tools HOST:PORT");
            System.exit(2);
        }
        boolean tools = arguments[0].equals("tools");
        if (tools) {
            Tools.capture();
        }
        Support.server = arguments[1];
        String list = System.getenv("SUITE_CASES");
        Set<String> wanted = list == null ? Set.of() : new HashSet<>(Files.readAllLines(Path.of(list)));
        LauncherDiscoveryRequestBuilder request = LauncherDiscoveryRequestBuilder.request();
        (tools ? TOOLS : CLASSES).forEach(each -> request.selectors(selectClass(each)));
        request.filters((PostDiscoveryFilter) test -> FilterResult.includedIf(
            list == null || !test.isTest() || wanted.contains(name(test))));
        request.configurationParameter("junit.jupiter.execution.timeout.default", "180 s");
        Suite suite = new Suite();
        LauncherDiscoveryRequest built = request.build();
        LauncherFactory.create().execute(built, suite);
        System.out.println(suite.passed + " passed, " + suite.failed + " failed");
        System.out.flush();
        // Clients that a failed case left open would wait for their threads.
        Runtime.getRuntime().halt(suite.failed == 0 ? 0 : 1);
    }

    private static String name(TestDescriptor test) {
        return test.getSource().filter(MethodSource.class::isInstance).map(MethodSource.class::cast)
            .map(source -> className(test.getUniqueId().toString()) + "." + source.getMethodName())
            .orElse(test.getDisplayName());
    }

    /** The class that runs, not the one that a method was inherited from. */
    private static String className(String id) {
        String from = id.substring(id.indexOf("[class:") + 7);
        return from.substring(0, from.indexOf(']'));
    }

    @Override
    public void executionStarted(TestIdentifier test) {
        begun.put(test.getUniqueId(), System.nanoTime());
    }

    @Override
    public void executionFinished(TestIdentifier test, TestExecutionResult result) {
        if (!test.isTest()) {
            result.getThrowable().ifPresent(Throwable::printStackTrace);
            return;
        }
        String name = className(test.getUniqueId()) + "." + ((MethodSource) test.getSource().orElseThrow()).getMethodName();
        double seconds = (System.nanoTime() - begun.get(test.getUniqueId())) / 1e9;
        if (result.getStatus() == TestExecutionResult.Status.SUCCESSFUL) {
            passed++;
            System.out.printf("ok %s (%.2f s)%n", name, seconds);
        } else if (result.getStatus() == TestExecutionResult.Status.ABORTED) {
            System.out.printf("skipped %s (%.2f s)%n", name, seconds);
        } else {
            failed++;
            Throwable error = result.getThrowable().orElse(new AssertionError("unknown"));
            error.printStackTrace();
            System.err.flush();
            String text = String.valueOf(error).replaceAll("\\s+", " ");
            System.out.printf("FAILED %s (%.2f s): %s%n", name, seconds, Support.clip(text));
        }
        System.out.flush();
    }
}
