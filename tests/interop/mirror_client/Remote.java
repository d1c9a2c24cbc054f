import java.time.Duration;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.connect.mirror.MirrorClient;
import org.apache.kafka.connect.mirror.RemoteClusterUtils;

/** What MirrorMaker 2's own client finds at the target of a mirror: `java Remote.java BOOTSTRAP ALIAS GROUP`. */
public class Remote {
    public static void main(String[] arguments) throws Exception {
        Map<String, Object> properties = Map.of("bootstrap.servers", arguments[0]);
        String alias = arguments[1];
        try (MirrorClient client = new MirrorClient(properties)) {
            System.out.println("upstream " + new TreeSet<>(client.upstreamClusters()));
            System.out.println("hops " + client.replicationHops(alias));
            System.out.println("checkpoints " + new TreeSet<>(client.checkpointTopics()));
            System.out.println("topics " + new TreeSet<>(client.remoteTopics(alias)));
        }
        Map<String, Long> offsets = new TreeMap<>();
        RemoteClusterUtils.translateOffsets(properties, alias, arguments[2], Duration.ofSeconds(30))
            .forEach((partition, offset) -> offsets.put(partition.toString(), offset.offset()));
        System.out.println("offsets " + offsets);
    }
}
